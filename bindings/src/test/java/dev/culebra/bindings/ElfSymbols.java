package dev.culebra.bindings;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.TreeSet;

/** Reads the dynamic symbol table of a 64-bit little-endian ELF file (System V ABI, chapters 4 and 5). */
final class ElfSymbols {
    private static final int SHT_DYNSYM = 11;
    private static final int STT_FUNC = 2;
    private static final int SECTION_HEADER_BYTES = 64;
    private static final int SYMBOL_BYTES = 24;

    private ElfSymbols() {}

    /** The names of the functions that the file defines and exports. */
    static TreeSet<String> exportedFunctions(Path file) throws IOException {
        try (var channel = FileChannel.open(file)) {
            var elf = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()).order(ByteOrder.LITTLE_ENDIAN);
            var sections = (int) elf.getLong(0x28);
            for (int i = 0; i < elf.getShort(0x3C); i++) {
                var header = sections + i * SECTION_HEADER_BYTES;
                if (elf.getInt(header + 4) == SHT_DYNSYM) {
                    var names = sections + elf.getInt(header + 0x28) * SECTION_HEADER_BYTES;
                    return functions(elf, (int) elf.getLong(header + 0x18), elf.getLong(header + 0x20),
                            (int) elf.getLong(names + 0x18));
                }
            }
            throw new IOException(file + " has no dynamic symbols");
        }
    }

    private static TreeSet<String> functions(ByteBuffer elf, int symbols, long bytes, int names) {
        var functions = new TreeSet<String>();
        for (int symbol = symbols; symbol < symbols + bytes; symbol += SYMBOL_BYTES) {
            var isFunction = (elf.get(symbol + 4) & 0xF) == STT_FUNC;
            var isDefined = elf.getShort(symbol + 6) != 0;
            if (isFunction && isDefined) {
                functions.add(string(elf, names + elf.getInt(symbol)));
            }
        }
        return functions;
    }

    private static String string(ByteBuffer elf, int start) {
        var text = new StringBuilder();
        for (int i = start; elf.get(i) != 0; i++) {
            text.append((char) elf.get(i));
        }
        return text.toString();
    }
}
