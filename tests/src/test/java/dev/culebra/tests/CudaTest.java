package dev.culebra.tests;

import java.util.List;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;

/** Everything on a GPU. Without one each of these fails: a test that does not run is no test. */
@Tag("cuda")
class CudaTest {
    private static final List<String> CUDA = List.of("cuda");

    @Nested
    class Conformance extends ConformanceSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Agreement extends AgreementSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Determinism extends DeterminismSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Recurrences extends RecurrenceSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Graphs extends GraphSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Contract extends ContractSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }

    @Nested
    class Ranks extends RanksSuite {
        @Override
        List<String> backends() {
            return CUDA;
        }
    }
}
