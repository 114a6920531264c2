package dev.culebra;

/**
 * What {@link Stream#plan} found.
 *
 * @param text how the last operator would run: design, tile, split and why; empty where it has but one way
 * @param workspaceBytes the largest workspace that one of the operators needs
 */
public record Plan(String text, long workspaceBytes) {}
