package dev.culebra.tests;

import java.util.List;

class AgreementTest extends AgreementSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
