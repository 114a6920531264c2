package dev.culebra;

/**
 * Which pages {@link Ops#kvSelect} chooses.
 *
 * @param topk all chosen pages together
 * @param sink the first pages, always chosen
 * @param recent the last pages, always chosen
 * @param theta with a previous choice: the least cosine at which it is kept, -1 to 1
 */
public record KvSelectOptions(int topk, int sink, int recent, float theta) {
    /** Of a choice that does not look at a previous one. */
    public KvSelectOptions(int topk, int sink, int recent) {
        this(topk, sink, recent, 0);
    }
}
