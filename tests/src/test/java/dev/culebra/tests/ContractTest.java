package dev.culebra.tests;

import java.util.List;

class ContractTest extends ContractSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
