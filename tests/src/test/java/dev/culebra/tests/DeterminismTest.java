package dev.culebra.tests;

import java.util.List;

class DeterminismTest extends DeterminismSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
