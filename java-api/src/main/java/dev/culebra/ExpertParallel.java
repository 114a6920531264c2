package dev.culebra;

import java.util.Arrays;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * A mixture of experts whose experts are spread over ranks: a token's rows go to the ranks that have its experts, are computed
 * there, come back, and are added at home. A result is {@code y[t] = sum_j weights[t,j] r(t,j)} in f32, in the order of j, where r
 * is expert {@code ids[t,j]}'s output rounded to the type of the tokens: no rank's number enters it. On streams that are {@linkplain
 * Stream#batchInvariant batch invariant} it has the same bits whatever the number of ranks and the placement of experts.
 *
 * <p>Every rank has one, with the same options, and makes the same calls in the same order, also where it has no tokens. A call
 * is two exchanges of {@code ranks x capacity} rows. Nothing waits, nothing is read back: calls can be captured. A slot for which
 * there is no room makes its token's result NaN; {@link #requireRoom} says how much there should be.
 *
 * <p>Owned by the scope that it was made with, as its buffers are; one stream, and one thread, at a time. Lepikhin et al., GShard,
 * <a href="https://arxiv.org/abs/2006.16668">arXiv:2006.16668</a>, for capacities; docs/expert-parallel.md has the bytes.
 */
public final class ExpertParallel {
    private final Communicator communicator;
    private final ExpertParallelOptions options;
    private final int capacity;
    private final Tensor expertRank;
    private final Tensor expertLocal;
    private final Tensor inverse;
    private final Tensor counts;

    // What goes to other ranks, and what comes from them: [ranks capacity] rows each way.
    private final Tensor sent;
    private final Tensor sentIds;
    private final Tensor received;
    private final Tensor receivedIds;
    private final Tensor ones;

    private final Tensor results;

    // The same memory as exchanges and as combine see it; made once, so that prepared calls keep them.
    private final Tensor sentBlocks;
    private final Tensor sentIdBlocks;
    private final Tensor receivedBlocks;
    private final Tensor receivedIdBlocks;
    private final Tensor resultBlocks;
    private final @Nullable ExpertRows[] dispatched;
    private @Nullable ExpertRows last;

    /**
     * Allocates what an exchange needs, about {@code 3 x ranks x capacity x width} elements.
     *
     * @throws ArgumentException if an option does not fit the group: a rank outside of it, a number that is not positive
     * @throws MemoryException if there is no memory for the buffers
     */
    public ExpertParallel(Communicator communicator, Scope scope, Stream stream, ExpertParallelOptions options) {
        this.communicator = communicator;
        this.options = options;
        var ranks = communicator.ranks();
        var experts = options.rankOfExpert().size();
        require(experts >= 1, "rankOfExpert has no experts");
        for (var expert = 0; expert < experts; expert++) {
            var rank = options.rankOfExpert().get(expert);
            require(rank >= 0 && rank < ranks, "expert " + expert + " is on rank " + rank + "; there are " + ranks);
        }
        require(options.k() >= 1, "k is " + options.k() + "; it must be 1 or more");
        require(options.width() >= 1, "width is " + options.width() + "; it must be 1 or more");
        require(options.maxTokens() >= 0, "maxTokens is " + options.maxTokens());
        require(options.capacity() >= 0, "capacity is " + options.capacity() + "; it must be 0, for what is enough, or more");
        require(options.dtype() == DType.F16 || options.dtype() == DType.BF16, "dtype is " + options.dtype() + "; it must be half");
        var all = (long) options.maxTokens() * options.k();
        var rows = ranks * (options.capacity() > 0 ? options.capacity() : all);
        require(rows <= Integer.MAX_VALUE, "ranks x capacity is " + rows + " rows; it must be below 2^31");
        capacity = (int) (rows / ranks);

        expertRank = scope.ints(stream, options.rankOfExpert().stream().mapToInt(rank -> rank).toArray(), experts);
        var local = new int[experts];
        var next = new int[ranks];
        Arrays.setAll(local, expert -> next[options.rankOfExpert().get(expert)]++);
        expertLocal = scope.ints(stream, local, experts);
        inverse = scope.allocate(DType.I32, all);
        counts = scope.zeros(stream, DType.I32, ranks);
        sent = scope.allocate(options.dtype(), rows, options.width());
        sentIds = scope.allocate(DType.I32, rows);
        received = scope.allocate(options.dtype(), rows, options.width());
        receivedIds = scope.allocate(DType.I32, rows, 1);
        ones = scope.floats(stream, repeated(1, (int) rows), rows, 1);
        results = scope.allocate(options.dtype(), rows, options.width());
        sentBlocks = sent.reshape(ranks, capacity, options.width());
        sentIdBlocks = sentIds.reshape(ranks, capacity);
        receivedBlocks = received.reshape(ranks, capacity, options.width());
        receivedIdBlocks = receivedIds.reshape(ranks, capacity);
        resultBlocks = results.reshape(ranks, capacity, options.width());
        dispatched = new ExpertRows[options.maxTokens() + 1];
    }

    private ExpertRows rowsOf(int tokens) {
        var known = dispatched[tokens];
        if (known == null) {
            known = new ExpertRows(sent, sentIds, inverse.slice(0, 0, (long) tokens * options.k()), counts);
            dispatched[tokens] = known;
        }
        return known;
    }

    private void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new ArgumentException(Status.RANGE, "expert_parallel", communicator.device().backend(),
                    "expert_parallel: " + otherwise);
        }
    }

    private static float[] repeated(float value, int count) {
        var values = new float[count];
        Arrays.fill(values, value);
        return values;
    }

    /** The group. */
    public Communicator communicator() {
        return communicator;
    }

    /** How it was made. */
    public ExpertParallelOptions options() {
        return options;
    }

    /** Rows that a rank can send another in one call. */
    public int capacity() {
        return capacity;
    }

    /**
     * Dispatch, the experts of this rank, combine.
     *
     * @param x [T, width], T up to maxTokens
     * @param experts those of this rank, in ascending order of their numbers: {@link ExpertParallelOptions#expertsOf}
     * @param weights f32 [T, k]
     * @param ids i32 [T, k], numbers of all experts; those that are none contribute nothing
     * @param y [T, width] as x
     * @param act of the gate
     * @throws ArgumentException if a shape or a type does not fit
     * @throws UnsupportedException if the group has ended
     */
    public void mlp(Stream stream, Tensor x, ExpertWeights experts, Tensor weights, Tensor ids, Tensor y, ExpertActivation act) {
        dispatch(stream, x, ids);
        Ops.moeMlp(stream, received, experts, ones, receivedIds, results, act);
        combine(stream, resultBlocks, weights, y);
    }

    /**
     * Sends x's rows to the ranks of their experts; afterwards {@link #rows} and {@link #rowIds} are what came from all ranks.
     *
     * @param x [T, width], T up to maxTokens
     * @param ids i32 [T, k]
     */
    public void dispatch(Stream stream, Tensor x, Tensor ids) {
        var tokens = x.rank() == 2 ? x.size(0) : 0;
        require(tokens <= options.maxTokens(), "x has " + tokens + " tokens; maxTokens is " + options.maxTokens());
        var out = rowsOf((int) tokens);
        Ops.moeDispatch(stream, x, ids, expertRank, expertLocal, out);
        communicator.allToAll(stream, sentBlocks, receivedBlocks, sentIdBlocks, receivedIdBlocks);
        last = out;
    }

    /** [ranks capacity, width]: the rows that ranks sent here, each rank's at {@code rank x capacity}. Of the last dispatch. */
    public Tensor rows() {
        return received;
    }

    /** i32 [ranks capacity, 1]: the number, among this rank's experts, of the one that a row is for; -1: there is no row. */
    public Tensor rowIds() {
        return receivedIds;
    }

    /**
     * Sends results back to where the rows of the last dispatch came from, and adds them there: {@code y[t] = sum_j weights[t,j]
     * r(t,j)}, in the order of j, in f32.
     *
     * @param rows [ranks, capacity, width], compact: a result in each row's place; those of no row are not read
     * @param weights f32 [T, k]
     * @param y [T, width] as x was
     */
    public void combine(Stream stream, Tensor rows, Tensor weights, Tensor y) {
        var out = last;
        require(out != null, "combine comes after a dispatch");
        // The rows that were sent are not needed any more: their results take their places.
        communicator.allToAll(stream, rows, sentBlocks);
        Ops.moeCombineDispatched(stream, sent, out.inverse(), weights, y, options.k());
    }

    /**
     * Waits for the last dispatch and looks if all of its rows had room.
     *
     * @return how many rows went to each rank
     * @throws UnsupportedException if a rank was to get more than {@link #capacity} rows; the message says which and how many
     */
    public int[] requireRoom(Stream stream) {
        var wanted = counts.ints(stream);
        IntStream.range(0, wanted.length).filter(rank -> wanted[rank] > capacity).findFirst().ifPresent(rank -> {
            throw new UnsupportedException(Status.UNSUPPORTED, "expert_parallel", communicator.device().backend(),
                    "expert_parallel: rank " + rank + " was to get " + wanted[rank] + " rows but capacity is " + capacity
                            + "; the results of tokens without room are NaN");
        });
        return wanted;
    }
}
