package dev.culebra;

/**
 * How experts are chosen. Immutable; start from {@link #top}.
 *
 * @param k experts a token, 1 to 32
 * @param score how logits become scores
 * @param groups of experts, of which the best are chosen first; 1 = none
 * @param topkGroups how many groups are chosen; 1 with one group
 * @param renormalize the chosen scores are divided by their sum
 * @param shared experts appended to every token with weight 1
 * @param scale of the weights
 */
public record RouteOptions(
        int k, Score score, int groups, int topkGroups, boolean renormalize, int shared, float scale) {
    /** How logits become scores. */
    public enum Score {
        /** Softmax over all experts. */
        SOFTMAX,
        /** Each logit's sigmoid. */
        SIGMOID
    }

    /** The k experts of the largest softmax, weighted by it. */
    public static RouteOptions top(int k) {
        return new RouteOptions(k, Score.SOFTMAX, 1, 1, false, 0, 1);
    }

    /** Another score. */
    public RouteOptions withScore(Score value) {
        return new RouteOptions(k, value, groups, topkGroups, renormalize, shared, scale);
    }

    /** With groups. */
    public RouteOptions withGroups(int count, int chosen) {
        return new RouteOptions(k, score, count, chosen, renormalize, shared, scale);
    }

    /** Renormalised or not. */
    public RouteOptions withRenormalize(boolean value) {
        return new RouteOptions(k, score, groups, topkGroups, value, shared, scale);
    }

    /** With shared experts. */
    public RouteOptions withShared(int value) {
        return new RouteOptions(k, score, groups, topkGroups, renormalize, value, scale);
    }

    /** Another scale. */
    public RouteOptions withScale(float value) {
        return new RouteOptions(k, score, groups, topkGroups, renormalize, shared, value);
    }
}
