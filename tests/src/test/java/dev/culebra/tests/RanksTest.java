package dev.culebra.tests;

import java.util.List;

class RanksTest extends RanksSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }
}
