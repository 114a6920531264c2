package dev.culebra.benchmarks.calls;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.culebra.Backend;
import dev.culebra.DType;
import dev.culebra.Device;
import java.util.concurrent.atomic.AtomicInteger;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.JCudaDriver;
import org.junit.jupiter.api.Test;

/**
 * JCuda's CUdeviceptr and tensors, both ways, as docs/interop.md shows it. On a machine without a driver JCuda calls the empty
 * one, whose memory is the host's, and the tensors are on cpu; with a driver both are on its first device.
 */
class JCudaInteropTest {
    /** The address that a CUdeviceptr holds: protected in JCuda, and nothing but a subclass's to read. */
    private static final class Address extends CUdeviceptr {
        private Address(CUdeviceptr pointer) {
            super(pointer);
        }

        static long of(CUdeviceptr pointer) {
            var address = new Address(pointer);
            return address.getNativePointer() + address.getByteOffset();
        }
    }

    @Test
    void pointersCrossBothWays() {
        var gpu = Device.available().stream().anyMatch(there -> there.backend() == Backend.CUDA && there.devices() > 0);
        var jcuda = new JCuda();
        jcuda.open();
        var released = new AtomicInteger();
        try (var device = Device.open(gpu ? "cuda" : "cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.I32, 4);
            stream.synchronize();
            var pointer = new CUdeviceptr().withByteOffset(x.pointer());
            assertEquals(x.pointer(), Address.of(pointer));
            JCudaDriver.cuMemsetD8(pointer, (byte) 1, 8);
            assertArrayEquals(new int[] {0x01010101, 0x01010101, 0, 0}, x.ints(stream));

            var theirs = new CUdeviceptr();
            JCudaDriver.cuMemAlloc(theirs, 16);
            var y = scope.wrapPointer(Address.of(theirs), () -> {
                JCudaDriver.cuMemFree(theirs);
                released.incrementAndGet();
            }, DType.I32, 4);
            y.setInts(stream, 1, 2, 3, 4);
            JCudaDriver.cuMemsetD8(theirs.withByteOffset(4), (byte) 2, 4);
            assertArrayEquals(new int[] {1, 0x02020202, 3, 4}, y.ints(stream));
            assertEquals(0, released.get());
            y.close();
            stream.synchronize();
        }
        assertEquals(1, released.get());
        jcuda.close();
    }
}
