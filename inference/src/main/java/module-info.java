/** Language models on the tensor API: checkpoints, caches and generation. {@link dev.culebra.inference.Generator} is the way in. */
module dev.culebra.inference {
    requires transitive dev.culebra;
    requires ai.djl.tokenizers;
    requires com.fasterxml.jackson.core;
    requires static transitive org.jspecify;

    exports dev.culebra.inference;
}
