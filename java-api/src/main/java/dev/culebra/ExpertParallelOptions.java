package dev.culebra;

import java.util.List;
import java.util.stream.IntStream;

/**
 * How experts are spread over ranks, the same on all of them. Immutable; start from {@link #even} or {@link #placed}.
 *
 * @param rankOfExpert the rank of each expert; a rank numbers its own in ascending order
 * @param k experts of a token
 * @param width channels of a token
 * @param dtype of tokens and results: half
 * @param maxTokens that a rank has at most in one call
 * @param capacity rows that a rank can send another in one call. 0: as many as there can be, so that none is ever without room
 */
public record ExpertParallelOptions(
        List<Integer> rankOfExpert, int k, int width, DType dtype, int maxTokens, int capacity) {
    public ExpertParallelOptions {
        rankOfExpert = List.copyOf(rankOfExpert);
    }

    /** Experts in equal runs: rank r has those from {@code r experts / ranks} on. */
    public static ExpertParallelOptions even(int experts, int ranks, int k, int width, DType dtype, int maxTokens) {
        return placed(IntStream.range(0, experts).mapToObj(e -> (int) ((long) e * ranks / experts)).toList(),
                k, width, dtype, maxTokens);
    }

    /** Experts on the ranks that are named. */
    public static ExpertParallelOptions placed(
            List<Integer> rankOfExpert, int k, int width, DType dtype, int maxTokens) {
        return new ExpertParallelOptions(rankOfExpert, k, width, dtype, maxTokens, 0);
    }

    /** With less room than all tokens could need. */
    public ExpertParallelOptions withCapacity(int value) {
        return new ExpertParallelOptions(rankOfExpert, k, width, dtype, maxTokens, value);
    }

    /** The experts of a rank, in the order of its own numbers. */
    public List<Integer> expertsOf(int rank) {
        return IntStream.range(0, rankOfExpert.size())
                .filter(expert -> rankOfExpert.get(expert) == rank)
                .boxed()
                .toList();
    }
}
