package dev.culebra.inference;

/**
 * How a checkpoint names the matrices of a layer's experts: {@code prefix.0.gate_proj} and its neighbours (Qwen, DeepSeek),
 * or {@code prefix.0.w1}, {@code w3}, {@code w2} (Mixtral).
 *
 * @param prefix of all of them
 * @param gate what the activation is applied to
 * @param up what it is multiplied with
 * @param down back to the model's width
 */
record ExpertNames(String prefix, String gate, String up, String down) {
    static ExpertNames find(Checkpoint checkpoint, String prefix) {
        var mixtral = new ExpertNames(prefix, "w1", "w3", "w2");
        var first = mixtral.of(0, mixtral.gate);
        return checkpoint.contains(first + ".weight") || checkpoint.contains(first + ".qweight")
                        || checkpoint.contains(first + ".weight_packed")
                ? mixtral
                : new ExpertNames(prefix, "gate_proj", "up_proj", "down_proj");
    }

    String of(int expert, String projection) {
        return prefix + "." + expert + "." + projection;
    }
}
