package dev.culebra.tests;

import java.util.List;

class GraphTest extends GraphSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
