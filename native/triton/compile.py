"""Compiles the Triton kernels of this folder to artefacts/, and checks each against numpy under Triton's interpreter.

    python -m venv venv && venv/bin/pip install triton==3.6.0 "numpy<2.4" torch
    venv/bin/python native/triton/compile.py            writes artefacts/ and oracles.json
    venv/bin/python native/triton/compile.py --check    writes nothing; fails where they differ from what is committed

Needs no GPU. Python is needed for this alone: what is built and run reads the committed artefacts. The same script takes
kernels of yours: import compile_kernel from it (docs/triton.md).
"""
import hashlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# A fixed order of files and no paths of the machine in a cubin: the same compiler gives the same bytes anywhere.
os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")
# What a launcher needs of Triton's metadata; the rest speaks of the machine that compiled.
METADATA = ["name", "shared", "num_warps", "num_ctas", "num_stages", "global_scratch_size", "global_scratch_align",
            "profile_scratch_size", "profile_scratch_align", "launch_pdl", "launch_cooperative_grid", "tensordesc_meta",
            "triton_version"]
CAPABILITIES = [80, 90]


def variants():
    """Every artefact: kernel, name of the variant, type of each argument, constants, hinted arguments, options."""
    for dtype in ["fp16", "bf16"]:
        norm = {a: "*" + dtype for a in ["x", "residual", "weight", "sum", "y"]} | {"stride": "i32", "n": "i32", "eps": "fp32"}
        aligned = ["x", "residual", "weight", "sum", "y", "stride", "n"]
        yield "add_rms_norm", dtype + "_aligned", norm, {"BLOCK": 4096}, aligned, {"num_warps": 8}
        yield "add_rms_norm", dtype, norm, {"BLOCK": 4096}, [], {"num_warps": 8}
        rows = {"x": "*" + dtype, "y": "*" + dtype, "x_stride": "i32", "y_stride": "i32", "n": "i32", "scale": "fp32"}
        yield "softmax", dtype + "_aligned", rows, {"BLOCK": 2048}, ["x", "y", "x_stride", "y_stride", "n"], {"num_warps": 8}
        yield "softmax", dtype, rows, {"BLOCK": 2048}, [], {"num_warps": 8}
        gla = ({"q": "*" + dtype, "k": "*" + dtype, "v": "*" + dtype, "g": "*fp32", "state": "*fp32", "o": "*" + dtype}
               | {"time": "i32", "heads": "i32", "value": "i32", "scale": "fp32"})
        yield ("simple_gla", dtype + "_aligned", gla, {"KEY": 64, "BLOCK_V": 32}, ["q", "k", "v", "g", "state", "o", "value"],
               {"num_warps": 4})
    # No bf16: the interpreter of Triton 3.6 multiplies its bit patterns as integers, so no oracle would stand behind it.
    product = ({a: "*fp16" for a in ["a", "b", "bias", "c"]}
               | {a: "i32" for a in ["m", "n", "k", "a_stride", "b_stride", "c_stride"]})
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64, "GROUP_M": 8}
    hinted = ["a", "b", "bias", "c", "n", "k", "a_stride", "b_stride", "c_stride"]
    yield "matmul_bias_silu", "fp16_aligned", product, tile, hinted, {"num_warps": 4, "num_stages": 4}
    yield "matmul_bias_silu", "fp16", product, tile, [], {"num_warps": 4, "num_stages": 2}


def compile_kernel(function, source, folder, variant, types, constants, hinted, options, capability):
    """Writes STEM.cubin, STEM.json (of Triton's metadata) and STEM.signature.json (what the metadata lacks)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(function.arg_names)
    signature = {name: types.get(name, "constexpr") for name in names}
    missing = [n for n in names if n not in types and n not in constants]
    if missing:
        raise ValueError(f"{function.__name__}: {missing} have neither a type nor a value")
    hints = {(names.index(n),): [["tt.divisibility", 16]] for n in hinted}
    made = triton.compile(ASTSource(fn=function, signature=signature, constexprs=constants, attrs=hints),
                          target=GPUTarget("cuda", capability, 32), options=options)
    all_metadata = made.metadata._asdict()
    metadata = {key: all_metadata[key] for key in METADATA}
    metadata["target"] = {"backend": "cuda", "arch": capability, "warp_size": 32}
    parameters = []
    for name in names:
        parameter = {"name": name, "type": signature[name]}
        if signature[name] == "constexpr":
            parameter["value"] = constants[name]
        if name in hinted:
            parameter["divisible_by"] = 16
        parameters.append(parameter)
    description = {
        "parameters": parameters,
        "provenance": {
            "compiler": "triton " + triton.__version__,
            "source": source.name,
            "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{function.__name__}.{variant}.sm_{capability}"
    (folder / f"{stem}.cubin").write_bytes(made.asm["cubin"])
    for suffix, content in ((".json", metadata), (".signature.json", description)):
        (folder / (stem + suffix)).write_text(json.dumps(content, indent=1) + "\n")


def compile_all(target):
    sys.path.insert(0, str(HERE))
    for kernel, variant, types, constants, hinted, options in variants():
        function = getattr(importlib.import_module(kernel), kernel)
        for capability in CAPABILITIES:
            compile_kernel(function, HERE / f"{kernel}.py", target / kernel, variant, types, constants, hinted, options, capability)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as work:
        made = pathlib.Path(work) / "artefacts"
        compile_all(made)
        # The interpreter must be chosen before Triton is imported: a process of its own.
        result = subprocess.run([sys.executable, HERE / "oracles.py"], env=os.environ | {"TRITON_INTERPRET": "1"},
                                check=True, stdout=subprocess.PIPE, text=True).stdout
        fresh = files(made) | {"../oracles.json": result.encode()}
        committed = files(HERE / "artefacts") if (HERE / "artefacts").exists() else {}
        if (HERE / "oracles.json").exists():
            committed["../oracles.json"] = (HERE / "oracles.json").read_bytes()
        if check:
            different = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
            if different:
                sys.exit("not what is committed: " + ", ".join(different))
            print(f"{len(fresh)} files are what is committed")
            return
        for name in committed.keys() - fresh.keys():
            (HERE / "artefacts" / name).unlink()
        for name, content in fresh.items():
            path = HERE / "artefacts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        print(f"{len(fresh)} files, {sum(map(len, fresh.values()))} bytes")


if __name__ == "__main__":
    main()
