package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Tensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A Qwen3-Next model with its weights on a device: layers of gated delta rule and gated attention, each with a mixture of
 * experts. Weights are never changed; any number of {@link Sequence}s can run on one model, from several threads.
 */
public final class Qwen3NextModel implements AutoCloseable {
    private final ModelConfig config;
    private final Device device;
    private final Scope scope;
    private final long weightBytes;
    private final Weights.Weight<Tensor> embedding;
    private final List<DecoderLayer> layers = new ArrayList<>();
    private final Weights.Weight<Tensor> norm;
    private final Weights.Weight<Linear> head;

    private Qwen3NextModel(ModelConfig config, Device device, Scope scope, Weights weights) {
        this.config = config;
        this.device = device;
        this.scope = scope;
        embedding = weights.table("model.embed_tokens.weight", config.vocabSize(), config.hiddenSize());
        for (var layer = 0; layer < config.layers().size(); layer++) {
            layers.add(new DecoderLayer(weights, layer, config));
        }
        norm = weights.vector("model.norm.weight", config.hiddenSize());
        head = weights.linear(
                config.tiedEmbeddings() ? "model.embed_tokens" : "lm_head", config.vocabSize(), config.hiddenSize());
        weightBytes = weights.bytes();
    }

    /**
     * Loads a Hugging Face directory: {@code config.json} and safetensors, bf16 or GPTQ with four bits. All shapes and types,
     * and the memory that the weights take, are checked before any of them is read.
     *
     * @throws ModelException if a file is missing or contradicts itself, the architecture is another one, tensors are missing
     *     or do not fit the config, or the weights do not fit into the device's memory or the limit set on it
     */
    public static Qwen3NextModel load(Device device, Path directory, LoadProgress progress) {
        var config = ModelConfig.read(directory);
        var weights = new Weights(Checkpoint.open(directory), config.quantization());
        var scope = device.openScope();
        try {
            var model = new Qwen3NextModel(config, device, scope, weights);
            model.checkMemory(directory);
            weights.load(device, scope, progress);
            return model;
        } catch (RuntimeException e) {
            scope.close();
            throw e;
        }
    }

    private void checkMemory(Path directory) {
        var memory = device.memory().statistics();
        var limit = memory.limitBytes() > 0 ? memory.limitBytes() : device.info().memoryBytes();
        if (weightBytes > limit - memory.usedBytes()) {
            throw new ModelException(directory + ": the weights take " + weightBytes + " bytes on " + device + ", but of its "
                    + (memory.limitBytes() > 0 ? "limit" : "memory") + " of " + limit + " bytes " + memory.usedBytes()
                    + " are in use");
        }
    }

    /** Its config. */
    public ModelConfig config() {
        return config;
    }

    /** The device that it is on. */
    public Device device() {
        return device;
    }

    /** What the weights take in the device's memory, before padding. */
    public long weightBytes() {
        return weightBytes;
    }

    /** Caches for one sequence, one a layer. */
    List<LayerCache> allocateCaches(Scope owner, int pages) {
        return layers.stream().map(layer -> layer.allocateCache(owner, pages)).toList();
    }

    /**
     * Appends the whole model.
     *
     * @param ids i32 [T]
     * @return [T, D], normalised, for {@link #bindHead}; valid until the pass ends
     */
    Tensor bind(ForwardPass pass, Tensor ids, List<LayerCache> caches, Positions positions) {
        long[] shape = {pass.rows(), config.hiddenSize()};
        var table = embedding.get();
        var embedded = pass.allocate(table.dtype(), shape);
        var residual = pass.allocate(Precision.STREAM, shape);
        var update = pass.allocate(Precision.STREAM, shape);
        pass.then(stream -> Ops.embedding(stream, table, ids, embedded));
        pass.then(stream -> Ops.cast(stream, embedded, residual));
        pass.then(update::zero);
        for (var layer = 0; layer < layers.size(); layer++) {
            layers.get(layer).bind(pass, residual, update, caches.get(layer), positions);
        }
        pass.then(stream ->
                Ops.rmsNorm(stream, update, norm.get(), residual, update, residual, config.rmsNormEps(), true));
        return update;
    }

    /** Appends the head: logits f32 [rows, V] of some rows of what {@link #bind} gave. */
    Tensor bindHead(ForwardPass pass, Tensor rows) {
        var logits = pass.allocate(DType.F32, rows.size(0), config.vocabSize());
        head.get().bind(pass, rows, logits);
        return logits;
    }

    /** Frees the weights. Sequences must be closed first. */
    @Override
    public void close() {
        scope.close();
    }
}
