package dev.culebra.oracles;

import dev.culebra.Activation;

/** Scalar functions. */
final class Functions {
    private Functions() {}

    static double sigmoid(double x) {
        return 1 / (1 + Math.exp(-x));
    }

    static double silu(double x) {
        return x == Double.NEGATIVE_INFINITY ? 0 : x * sigmoid(x);
    }

    static double gelu(double x) {
        return x / 2 * (1 + erf(x / Math.sqrt(2)));
    }

    static double geluTanh(double x) {
        return x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
    }

    static double softplus(double x) {
        return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
    }

    static double apply(Activation act, double x) {
        return switch (act) {
            case NONE -> x;
            case SILU -> silu(x);
            case GELU -> gelu(x);
        };
    }

    /** The series {@code 2/sqrt(pi) sum (-1)^n x^(2n+1) / (n! (2n+1))}, or beyond 3 the continued fraction of erfc. */
    static double erf(double x) {
        if (Math.abs(x) < 3) {
            var term = x;
            var sum = x;
            for (var n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
                term *= -x * x / n;
                sum += term / (2 * n + 1);
            }
            return 2 / Math.sqrt(Math.PI) * sum;
        }
        var fraction = 0.0;
        for (var n = 60; n > 0; n--) {
            fraction = n / 2.0 / (Math.abs(x) + fraction);
        }
        var erfc = Math.exp(-x * x) / Math.sqrt(Math.PI) / (Math.abs(x) + fraction);
        return Math.copySign(1 - erfc, x);
    }
}
