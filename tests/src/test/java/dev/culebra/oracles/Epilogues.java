package dev.culebra.oracles;

import dev.culebra.Epilogue;

/** What a product with packed weights does with its sums, which have their bias already. */
final class Epilogues {
    private Epilogues() {}

    static void apply(Problem p, double[] c, int m, int n) {
        switch (p.attributes().oneOf("epilogue", Epilogue.NONE)) {
            case NONE -> p.out("c", c, m, n);
            case SILU -> {
                for (var i = 0; i < c.length; i++) {
                    c[i] = Functions.silu(c[i]);
                }
                p.out("c", c, m, n);
            }
            case SILU_MUL -> {
                var half = n / 2;
                var products = new double[m * half];
                for (var i = 0; i < products.length; i++) {
                    var row = i / half * n;
                    products[i] = Functions.silu(c[row + i % half]) * c[row + half + i % half];
                }
                p.out("c", products, m, half);
            }
        }
    }
}
