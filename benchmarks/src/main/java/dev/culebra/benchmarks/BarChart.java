package dev.culebra.benchmarks;

import dev.culebra.benchmarks.Results.Row;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

/**
 * Horizontal bars with whiskers from p10 to p90, grouped by work, as SVG. Each group has its own scale: only bars of equal work compare.
 */
final class BarChart {
    private static final int LEFT = 250;
    private static final int WIDTH = 1020;
    private static final int PLOT = 470;
    private static final int BAR = 16;
    private static final int GAP = 12;
    private static final int TOP = 56;

    private final StringBuilder body = new StringBuilder();
    private double perUnit;
    private int y = TOP;

    /**
     * Draws {@code rows}, one a bar.
     *
     * @param title what is shown
     * @param subtitle where it was measured
     */
    static String draw(String title, String subtitle, List<Row> rows) {
        var chart = new BarChart();
        rows.stream().collect(Collectors.groupingBy(Row::work, LinkedHashMap::new, Collectors.toList())).values().forEach(chart::group);
        var height = chart.y + GAP;
        return """
                <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
                <rect width="100%%" height="100%%" fill="#ffffff"/>
                <text x="16" y="26" font-size="16" font-weight="bold">%s</text>
                <text x="16" y="46" fill="#555555">%s</text>
                %s</svg>
                """.formatted(WIDTH, height, escape(title), escape(subtitle), chart.body);
    }

    private void group(List<Row> rows) {
        perUnit = PLOT / rows.stream().mapToDouble(Row::p90).max().orElseThrow();
        y += GAP;
        rows.forEach(this::bar);
    }

    private void bar(Row row) {
        var middle = y + BAR / 2;
        text(LEFT - 8, "end", row.work() + " · " + row.via());
        add("<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>",
                LEFT, y + 2, row.median() * perUnit, BAR - 4, row.via().equals("api") ? "#00796b" : "#9e9e9e");
        add("<path d=\"M%.1f %dH%.1f\" stroke=\"#212121\"/>", LEFT + row.p10() * perUnit, middle, LEFT + row.p90() * perUnit);
        var limit = row.limit();
        var label = Results.format(row.median()) + " " + row.unit();
        if (limit != null) {
            add("<path d=\"M%.1f %dV%d\" stroke=\"#c62828\" stroke-width=\"2\"/>", LEFT + limit * perUnit, y, y + BAR);
            label += String.format(Locale.ROOT, " (limit %s, %.0f %% of it reached)", Results.format(limit), 100 * row.fraction());
        }
        text(LEFT + (int) (row.p90() * perUnit) + 6, "start", label);
        y += BAR;
    }

    private void text(int x, String anchor, String text) {
        add("<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">%s</text>", x, y + BAR - 4, anchor, escape(text));
    }

    private void add(String format, Object... values) {
        body.append(String.format(Locale.ROOT, format, values)).append('\n');
    }

    private static String escape(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
    }
}
