/** The binder: {@link dev.culebra.micrometer.DeviceMetrics}. */
@org.jspecify.annotations.NullMarked
package dev.culebra.micrometer;
