package dev.culebra.tests;

import java.util.List;

class RecurrenceTest extends RecurrenceSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
