package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/** A rank with a device of its own, which must have nothing left when it closes. */
final class TestRank implements AutoCloseable {
    final Device device;
    final Stream stream;
    final Scope scope;
    final CommunicatorId id;
    final Communicator communicator;
    final Tensor send;
    final Tensor recv;
    boolean failed;

    TestRank(String backend, int rank, int ranks, @Nullable CommunicatorId id, Duration timeout) {
        device = Device.open(backend, DeviceOptions.DEFAULT.withPoison(true).withThreads(1));
        stream = device.openStream();
        scope = device.openScope();
        this.id = id == null ? CommunicatorId.create(device) : id;
        communicator = Communicator.join(device, this.id, rank, ranks, timeout);
        send = scope.zeros(stream, DType.F32, ranks, 1);
        recv = scope.zeros(stream, DType.F32, ranks, 1);
    }

    /** Queues an exchange of these numbers, one for each rank. */
    void exchange(float... blocks) {
        send.setFloats(stream, blocks);
        communicator.allToAll(stream, send, recv);
    }

    float[] received() {
        return recv.floats(stream);
    }

    @Override
    public void close() {
        if (device.isClosed()) {
            return;
        }
        communicator.close();
        scope.close();
        if (!failed) {
            stream.close(); // and its workspace
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
        try {
            device.close();
        } catch (DeviceFailedException e) {
            assertEquals(true, failed, e.getMessage());
        }
    }
}
