package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.DeviceOptions;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.conformance.HostTensor;
import java.util.Random;

/** A device with a stream and a scope for one test. At its end all memory must have been given back. */
final class TestDevice implements AutoCloseable {
    final Device device;
    final Stream stream;
    final Scope scope;
    final Random random = new Random(7);

    TestDevice(String backend) {
        device = Device.open(backend, DeviceOptions.DEFAULT.withPoison(true));
        stream = device.openStream();
        scope = device.openScope();
    }

    Tensor zeros(DType dtype, long... shape) {
        return scope.zeros(stream, dtype, shape);
    }

    Tensor normal(DType dtype, long... shape) {
        return upload(CaseBuilder.normal(random, dtype, 1, shape));
    }

    Tensor upload(HostTensor contents) {
        var tensor = scope.allocate(contents.dtype(), contents.shape());
        tensor.upload(stream, contents.data());
        return tensor;
    }

    @Override
    public void close() {
        scope.close();
        stream.close();
        var left = device.memory().statistics();
        device.close();
        assertEquals(0, left.usedBytes(), () -> "left behind: " + left);
        assertEquals(0, left.liveAllocations(), () -> "left behind: " + left);
        assertEquals(0, left.hostBytes(), () -> "left behind: " + left);
    }
}
