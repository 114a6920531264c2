/**
 * Language models on the tensor API.
 *
 * {@snippet :
 * try (var device = Device.open("cpu"); var model = Qwen3NextModel.load(device, directory, LoadProgress.NONE);
 *         var tokenizer = Tokenizer.load(directory)) {
 *     var generator = new Generator(model, tokenizer);
 *     generator.generate("In the beginning", GenerationOptions.DEFAULT, System.out::print);
 * }
 * }
 */
@NullMarked
package dev.culebra.inference;

import org.jspecify.annotations.NullMarked;
