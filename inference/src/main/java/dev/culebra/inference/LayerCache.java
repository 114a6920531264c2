package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.PagedCache;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;

/** What a layer remembers of a sequence's tokens. */
sealed interface LayerCache {
    /** Forgets all of them. */
    void clear(Stream stream);

    /**
     * Of a gated delta rule.
     *
     * @param conv [1, C, W-1], the last inputs of the convolution
     * @param state f32 [1, HV, V, K]
     */
    record Delta(Tensor conv, Tensor state) implements LayerCache {
        static Delta allocate(Scope scope, ModelConfig.Delta delta) {
            return new Delta(
                    scope.allocate(Precision.STREAM, 1, delta.convChannels(), delta.convWidth() - 1),
                    scope.allocate(DType.F32, 1, delta.valueHeads(), delta.valueDim(), delta.keyDim()));
        }

        @Override
        public void clear(Stream stream) {
            conv.zero(stream);
            state.zero(stream);
        }
    }

    /**
     * Of attention: keys and values in pages, which lie in the order of the tokens.
     *
     * @param pages [P, page, Hkv, D] each
     */
    record Attention(PagedCache pages) implements LayerCache {
        /** Tokens of a page. */
        static final int PAGE = 16;

        static Attention allocate(Scope scope, ModelConfig.Attention attention, int pages) {
            long[] shape = {pages, PAGE, attention.kvHeads(), attention.headDim()};
            return new Attention(new PagedCache(
                    scope.allocate(Precision.STREAM, shape), scope.allocate(Precision.STREAM, shape)));
        }

        /** The first {@code tokens} of keys or values, [tokens, Hkv, D]. */
        Tensor first(ForwardPass pass, Tensor pagesOfOne, long tokens) {
            try (var rows = pagesOfOne.reshape(-1, pagesOfOne.size(2), pagesOfOne.size(3))) {
                return pass.adopt(rows.slice(0, 0, tokens));
            }
        }

        @Override
        public void clear(Stream stream) {
            // Nothing is read beyond the length of the sequence.
        }
    }
}
