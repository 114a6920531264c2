/**
 * The tensor API.
 *
 * {@snippet :
 * try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
 *     var x = scope.floats(stream, new float[] {3, 4}, 1, 2);
 *     var weight = scope.floats(stream, new float[] {1, 1}, 2);
 *     var y = scope.allocate(DType.F32, 1, 2);
 *     Ops.rmsNorm(stream, x, weight, null, y, null, 1e-6f, false);
 *     System.out.println(Arrays.toString(y.floats(stream)));
 * }
 * }
 *
 * <p><b>Asynchrony.</b> An operator checks its arguments, queues its work on a {@link Stream} and returns; {@link
 * Stream#synchronize} waits. Work on one stream runs in order.
 *
 * <p><b>Repetition.</b> Work that comes again is recorded and repeated in one native call: {@link Stream#prepare}, {@link
 * Stream#capture}, {@link GraphCache}.
 *
 * <p><b>Lifetimes.</b> Every tensor belongs to a {@link Scope}. Closing takes effect in stream order: memory that
 * queued work still uses is not reused before that work is done. Everything is closed once, however often {@code close}
 * is called, and everything that a device holds is closed with the device.
 *
 * <p><b>Memory of others.</b> {@link Scope#wrap}, {@link Scope#wrapPointer}, {@link Tensor#hostView} and {@link Dlpack} share memory
 * with other libraries without a copy.
 *
 * <p><b>Threads.</b> Devices, scopes and tensors are shared freely. A stream may wander between threads, but two
 * threads in one stream at once is a {@link ConcurrentUseException}.
 *
 * <p><b>Errors.</b> All failures are {@link CulebraException}s. System properties: {@code culebra.paranoid=true}
 * records where everything was made and reports leaks; {@code culebra.check=true} has operators validate index tensors.
 */
@NullMarked
package dev.culebra;

import org.jspecify.annotations.NullMarked;
