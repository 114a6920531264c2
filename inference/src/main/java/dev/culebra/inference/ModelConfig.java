package dev.culebra.inference;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The {@code config.json} of a Qwen3-Next checkpoint, checked. Names are the field's without their decoration.
 *
 * @param hiddenSize width of the residual stream
 * @param vocabSize rows of the embedding and of the head
 * @param maxPositions tokens that a sequence may have
 * @param rmsNormEps added to mean squares
 * @param tiedEmbeddings the head is the embedding
 * @param eosIds tokens that end a text
 * @param layers a mixer for each layer
 * @param denseLayers layers that have one MLP in place of experts
 * @param denseWidth of those
 * @param attention of the full attention layers
 * @param delta of the linear attention layers
 * @param experts of the other layers; null where all layers are dense
 * @param quantization of the linear weights; null: none
 */
public record ModelConfig(
        int hiddenSize,
        int vocabSize,
        int maxPositions,
        float rmsNormEps,
        boolean tiedEmbeddings,
        Set<Integer> eosIds,
        List<Mixer> layers,
        Set<Integer> denseLayers,
        int denseWidth,
        Attention attention,
        Delta delta,
        @Nullable Experts experts,
        @Nullable Quantization quantization) {
    private static final String ARCHITECTURE = "Qwen3NextForCausalLM";

    /** What mixes the tokens of a layer. */
    public enum Mixer {
        /** Gated delta rule. */
        LINEAR_ATTENTION,
        /** Gated softmax attention. */
        FULL_ATTENTION
    }

    /**
     * Gated attention.
     *
     * @param heads of the queries
     * @param kvHeads of keys and values
     * @param headDim channels of a head
     * @param rotaryDim channels that the rotary embedding turns
     * @param ropeTheta base of its frequencies
     */
    public record Attention(int heads, int kvHeads, int headDim, int rotaryDim, double ropeTheta) {}

    /**
     * Gated delta rule with a short convolution.
     *
     * @param keyHeads of queries and keys
     * @param valueHeads of values and states
     * @param keyDim channels of a key head
     * @param valueDim channels of a value head
     * @param convWidth taps of the convolution
     */
    public record Delta(int keyHeads, int valueHeads, int keyDim, int valueDim, int convWidth) {
        /** Channels of all queries, which is that of all keys. */
        int keyWidth() {
            return keyHeads * keyDim;
        }

        /** Channels of all values, which is that of all output gates. */
        int valueWidth() {
            return valueHeads * valueDim;
        }

        /** Channels that pass the convolution. */
        int convChannels() {
            return 2 * keyWidth() + valueWidth();
        }
    }

    /**
     * Mixture of experts.
     *
     * @param count of experts
     * @param perToken experts that a token is sent to
     * @param width of an expert
     * @param sharedWidth of the expert that every token is sent to
     * @param renormalize the chosen weights sum to 1
     */
    public record Experts(int count, int perToken, int width, int sharedWidth, boolean renormalize) {}

    /**
     * GPTQ.
     *
     * @param groupSize weights of a row that share a scale; -1: all
     * @param v2 zero points are stored as they are, not less 1
     */
    public record Quantization(int groupSize, boolean v2) {}

    /**
     * Reads {@code config.json}, and the end tokens of {@code generation_config.json} where there is one.
     *
     * @throws ModelException if a file is missing or not JSON, the architecture is another one, or fields are missing,
     *     contradict each other or ask for what is not offered here
     */
    public static ModelConfig read(Path directory) {
        var json = JsonObject.read(directory.resolve("config.json"));
        checkArchitecture(json);
        if (!json.text("hidden_act", "silu").equals("silu")) {
            throw json.error("hidden_act", "is " + json.text("hidden_act") + "; only silu is supported");
        }
        if (json.flag("attention_bias", false)) {
            throw json.error("attention_bias", "is true; only false is supported");
        }
        var layers = layers(json);
        var dense = denseLayers(json, layers.size());
        return new ModelConfig(
                json.integer("hidden_size", 8),
                json.integer("vocab_size", 1),
                json.integer("max_position_embeddings", 1),
                (float) json.positive("rms_norm_eps"),
                json.flag("tie_word_embeddings", false),
                eosIds(json, directory),
                layers,
                dense,
                dense.isEmpty() ? 0 : json.integer("intermediate_size", 1),
                attention(json),
                delta(json),
                dense.size() == layers.size() ? null : experts(json),
                quantization(json));
    }

    private static void checkArchitecture(JsonObject json) {
        if (json.has("architectures")) {
            var names = json.texts("architectures");
            if (!names.contains(ARCHITECTURE)) {
                throw json.error("architectures", "is " + names + "; supported is " + ARCHITECTURE);
            }
        } else if (!json.text("model_type").equals("qwen3_next")) {
            throw json.error("model_type", "is " + json.text("model_type") + "; supported is qwen3_next");
        }
    }

    private static List<Mixer> layers(JsonObject json) {
        var count = json.integer("num_hidden_layers", 1);
        var layers = new ArrayList<Mixer>();
        if (json.has("layer_types")) {
            for (var type : json.texts("layer_types")) {
                layers.add(switch (type) {
                    case "linear_attention" -> Mixer.LINEAR_ATTENTION;
                    case "full_attention" -> Mixer.FULL_ATTENTION;
                    default -> throw json.error("layer_types", "holds " + type + "; known are linear_attention and full_attention");
                });
            }
            if (layers.size() != count) {
                throw json.error("layer_types", "has " + layers.size() + " entries but num_hidden_layers is " + count);
            }
            return layers;
        }
        var interval = json.integer("full_attention_interval", 1, 4);
        for (var layer = 1; layer <= count; layer++) {
            layers.add(layer % interval == 0 ? Mixer.FULL_ATTENTION : Mixer.LINEAR_ATTENTION);
        }
        return layers;
    }

    private static Set<Integer> denseLayers(JsonObject json, int layers) {
        var dense = new LinkedHashSet<>(json.integers("mlp_only_layers"));
        var step = json.integer("decoder_sparse_step", 1, 1);
        var withoutExperts = json.integer("num_experts", 0) == 0;
        for (var layer = 0; layer < layers; layer++) {
            if (withoutExperts || (layer + 1) % step != 0) {
                dense.add(layer);
            }
        }
        dense.removeIf(layer -> layer >= layers);
        return dense;
    }

    private static Attention attention(JsonObject json) {
        var heads = json.integer("num_attention_heads", 1);
        var kvHeads = json.integer("num_key_value_heads", 1, heads);
        if (heads % kvHeads != 0) {
            throw json.error("num_attention_heads", "is " + heads + ", which is no multiple of num_key_value_heads = " + kvHeads);
        }
        var headDim = headDim(json, "head_dim", json.has("head_dim") ? json.integer("head_dim", 8)
                : json.integer("hidden_size", 8) / heads);
        var rope = json.object("rope_parameters");
        if (rope == null) {
            rope = json.object("rope_scaling");
        }
        if (rope != null) {
            var type = rope.text(rope.has("rope_type") || !rope.has("type") ? "rope_type" : "type", "default");
            if (!type.equals("default")) {
                throw rope.error("rope_type", "is " + type + "; only default is supported");
            }
        }
        var theta = agreeing(json, rope, "rope_theta", 10_000);
        var factor = agreeing(json, rope, "partial_rotary_factor", 0.25);
        var rotaryDim = (int) (headDim * factor);
        if (factor > 1 || rotaryDim < 2 || rotaryDim % 2 != 0) {
            throw json.error("partial_rotary_factor", "is " + factor + "; of the " + headDim
                    + " channels of head_dim it must take an even number");
        }
        return new Attention(heads, kvHeads, headDim, rotaryDim, theta);
    }

    /** A field that stands at the top, in the rotary parameters, or in both with one value. */
    private static double agreeing(JsonObject json, @Nullable JsonObject rope, String name, double absent) {
        var inner = rope != null && rope.has(name) ? rope.positive(name) : Double.NaN;
        var outer = json.has(name) ? json.positive(name) : Double.NaN;
        if (inner != outer && !Double.isNaN(inner) && !Double.isNaN(outer)) {
            throw json.error(name, "is " + outer + " but that of the rotary parameters is " + inner);
        }
        return !Double.isNaN(inner) ? inner : !Double.isNaN(outer) ? outer : absent;
    }

    private static int headDim(JsonObject json, String name, int dim) {
        if (dim % 8 != 0 || dim > 256) {
            throw json.error(name, "is " + dim + "; it must be a multiple of 8 up to 256");
        }
        return dim;
    }

    private static Delta delta(JsonObject json) {
        var keyHeads = json.integer("linear_num_key_heads", 1);
        var valueHeads = json.integer("linear_num_value_heads", 1);
        if (valueHeads % keyHeads != 0) {
            throw json.error("linear_num_value_heads", "is " + valueHeads + ", which is no multiple of linear_num_key_heads = " + keyHeads);
        }
        var width = json.integer("linear_conv_kernel_dim", 2);
        if (width > 4) {
            throw json.error("linear_conv_kernel_dim", "is " + width + "; 2 to 4 are supported");
        }
        return new Delta(
                keyHeads,
                valueHeads,
                headDim(json, "linear_key_head_dim", json.integer("linear_key_head_dim", 8)),
                headDim(json, "linear_value_head_dim", json.integer("linear_value_head_dim", 8)),
                width);
    }

    private static Experts experts(JsonObject json) {
        var count = json.integer("num_experts", 1);
        var perToken = json.integer("num_experts_per_tok", 1);
        if (perToken > count || perToken > 32 || count > 2048) {
            throw json.error("num_experts_per_tok", "is " + perToken + " of num_experts = " + count
                    + "; supported are up to 32 of up to 2048");
        }
        return new Experts(
                count,
                perToken,
                json.integer("moe_intermediate_size", 1),
                json.integer("shared_expert_intermediate_size", 1),
                json.flag("norm_topk_prob", true));
    }

    private static @Nullable Quantization quantization(JsonObject json) {
        var quantization = json.object("quantization_config");
        if (quantization == null) {
            return null;
        }
        var method = quantization.text("quant_method");
        if (!method.equals("gptq")) {
            throw quantization.error("quant_method", "is " + method + "; supported is gptq");
        }
        var bits = quantization.integer("bits", 1);
        if (bits != 4) {
            throw quantization.error("bits", "is " + bits + "; supported is 4");
        }
        var group = quantization.integer("group_size", -1);
        if (group != -1 && group != 32 && group != 64 && group != 128) {
            throw quantization.error("group_size", "is " + group + "; supported are -1, 32, 64 and 128");
        }
        var format = quantization.text("checkpoint_format", "gptq");
        return switch (format) {
            case "gptq" -> new Quantization(group, false);
            case "gptq_v2" -> new Quantization(group, true);
            default -> throw quantization.error("checkpoint_format", "is " + format + "; supported are gptq and gptq_v2");
        };
    }

    private static Set<Integer> eosIds(JsonObject json, Path directory) {
        var ids = new LinkedHashSet<>(json.integers("eos_token_id"));
        var generation = directory.resolve("generation_config.json");
        if (Files.exists(generation)) {
            ids.addAll(JsonObject.read(generation).integers("eos_token_id"));
        }
        return ids;
    }
}
