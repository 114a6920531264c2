"""libculebra through ctypes, as far as the benchmark needs it: arrays in its memory, its operators, graphs and events."""
import ctypes as C

import numpy as np

BACKENDS = {"cpu": 0, "cuda": 1, "simt": 2}
DEVICE_TYPES = {"cpu": 1, "cuda": 2, "simt": 12}
BATCH_INVARIANT, PLAN_ONLY = 1, 2
OK, UNSUPPORTED, WORKSPACE, ARCH = 0, 8, 9, 10
# DLPack's code and bits, and the numpy type that holds the bits.
DTYPES = {"f32": (2, 32, np.float32), "f16": (2, 16, np.float16), "bf16": (4, 16, np.uint16), "f8e4m3": (10, 8, np.uint8),
          "u8": (1, 8, np.uint8), "i8": (0, 8, np.int8), "i32": (0, 32, np.int32), "i64": (0, 64, np.int64)}


def _e4m3_table():
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value = np.where(bits & 127 == 127, np.nan, value)
    return np.where(bits & 128, -value, value)


E4M3 = _e4m3_table()


def encode(values, dtype):
    """f32 values as the bits of dtype, rounded to nearest."""
    if dtype == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    if dtype == "f8e4m3":
        order = np.argsort(E4M3[:127])  # the positive numbers ascend already
        positive = E4M3[:127][order]
        middle = (positive[1:] + positive[:-1]) / 2
        bits = np.searchsorted(middle, np.abs(values)).astype(np.uint8)
        return bits | np.where(np.signbit(values), 128, 0).astype(np.uint8)
    return np.ascontiguousarray(values, DTYPES[dtype][2])


def decode(bits, dtype):
    """What is stored, exactly, in double."""
    if dtype == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "f8e4m3":
        return E4M3[bits]
    return bits.astype(np.float64)


class Tensor(C.Structure):
    _fields_ = [("data", C.c_void_p), ("device_type", C.c_int32), ("device_index", C.c_int32), ("ndim", C.c_int32),
                ("code", C.c_uint8), ("bits", C.c_uint8), ("lanes", C.c_uint16), ("shape", C.POINTER(C.c_int64)),
                ("strides", C.POINTER(C.c_int64)), ("byte_offset", C.c_uint64)]


class Checkpoint(C.Structure):
    _fields_ = [("struct_size", C.c_uint32)] + [(f, C.c_int32) for f in (
        "format", "bits", "group", "scaling", "sparsity", "operand", "reserved0")] + [("n", C.c_int64), ("k", C.c_int64)] + [
        (f, C.POINTER(Tensor)) for f in ("qweight", "scales", "zeros", "g_idx")]


class PackPlan(C.Structure):
    _fields_ = [("struct_size", C.c_uint32)] + [(f, C.c_int32) for f in ("format", "group", "symmetric", "permuted", "reserved0")] + [
        (f, C.c_int64) for f in ("n_padded", "k_padded", "groups", "scale_columns", "packed_bytes")]


class OpCall(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("workspace", C.c_void_p), ("workspace_bytes", C.c_uint64)]


def _args(tensors, *numbers):
    """The args struct of an op: its call, then tensors, then numbers as (name, type), padded to eight bytes as in C."""
    fields = [("call", OpCall)] + [(t, C.POINTER(Tensor)) for t in tensors.split()] + list(numbers)
    return type("Args", (C.Structure,), {"_fields_": fields})


_i32, _i64, _f32 = C.c_int32, C.c_int64, C.c_float
_SHAPE = (("n", _i64), ("k", _i64))
ARGS = {
    "gemm": _args("a b bias c", ("act", _i32), ("reserved0", _i32)),
    "pack_weights": type("Args", (C.Structure,), {"_fields_": [("call", OpCall), ("checkpoint", C.POINTER(Checkpoint))] + [
        (t, C.POINTER(Tensor)) for t in "perm group_source packed packed_scales packed_zeros".split()] + [("packed_group", _i64)]}),
    "w4a16_gemm": _args("a packed packed_scales packed_zeros perm bias c", *_SHAPE, ("packed_group", _i64), ("epilogue", _i32), ("reserved0", _i32)),
    "w8a16_gemm": _args("a packed packed_scales packed_zeros perm bias c", *_SHAPE, ("packed_group", _i64), ("epilogue", _i32), ("reserved0", _i32)),
    "w6a16_gemm": _args("a packed packed_scales bias c", *_SHAPE, ("packed_group", _i64), ("epilogue", _i32), ("reserved0", _i32)),
    "w4a16_sparse24_gemm": _args("a packed packed_scales bias c", *_SHAPE, ("packed_group", _i64), ("epilogue", _i32), ("reserved0", _i32)),
    "quantize_activations": _args("x scale q scales", ("mode", _i32), ("reserved0", _i32)),
    "fp8_gemm": _args("a b a_scale b_scale bias c", ("scaling", _i32), ("reserved0", _i32)),
    "w4a8_gemm": _args("a a_scale packed packed_scales channel_scale c", *_SHAPE, ("epilogue", _i32), ("reserved0", _i32)),
    "w6a8_gemm": _args("a a_scale packed packed_scales bias c", *_SHAPE, ("epilogue", _i32), ("reserved0", _i32)),
    "sparse_mlp": _args("x w_gate w_up w_down_t y active", ("threshold", _f32), ("reserved0", _i32)),
    "linear_logprob": _args("e c bias targets logprob lse", ("ignore_index", _i64), ("vocab_start", _i64), ("softcap", _f32), ("reserved0", _i32)),
    "moe_route": _args("logits bias weights ids", *((f, _i32) for f in "k score n_group topk_group renormalize n_shared".split()), ("scale", _f32),
                       ("reserved0", _i32)),
    "moe_align": _args("ids expert_map sorted block_expert offsets inverse n_padded", *((f, _i32) for f in "experts local_experts block reserved0".split())),
    "moe_dispatch": _args("x ids expert_rank expert_local rows row_ids inverse counts"),
    "moe_combine": _args("rows inverse weights y", ("k", _i32), ("dispatched", _i32)),
    "moe_mlp": _args("x w13 w13_scales w13_zeros w2 w2_scales w2_zeros b13 b2 weights ids logits route_bias y", ("experts", _i32), ("group", _i32),
                     ("act", _i32), ("alpha", _f32), ("limit", _f32), *((f, _i32) for f in "k score n_group topk_group renormalize n_shared".split()),
                     ("scale", _f32)),
}


class Unsupported(Exception):
    """The device has no kernel for the op, or lacks what it needs."""


class Array:
    """A compact array in the device's memory."""

    def __init__(self, library, dtype, shape):
        self.library, self.dtype, self.shape = library, dtype, tuple(shape)
        code, bits, self.type = DTYPES[dtype]
        self.bytes = int(np.prod(self.shape, dtype=np.int64)) * bits // 8
        self.pointer = C.c_void_p()
        library.check(library.lib.cul_memory_alloc(library.device, C.c_uint64(self.bytes), C.byref(self.pointer)))
        self._shape = (C.c_int64 * len(self.shape))(*self.shape)
        self.tensor = Tensor(self.pointer, DEVICE_TYPES[library.backend], 0, len(self.shape), code, bits, 1, self._shape, None, 0)

    def put(self, values):
        """Fills it with the bits of `values`, repeated along the first axis until it is full."""
        values = np.ascontiguousarray(values, self.type)
        for at in range(0, self.bytes, values.nbytes):
            self._copy(self.pointer.value + at, values.ctypes.data, min(values.nbytes, self.bytes - at))
        return self

    def get(self):
        values = np.empty(self.shape, self.type)
        self._copy(values.ctypes.data, self.pointer.value, self.bytes)
        return values

    def copy(self):
        other = Array(self.library, self.dtype, self.shape)
        self._copy(other.pointer.value, self.pointer.value, self.bytes)
        return other

    def _copy(self, to, source, count):
        self.library.check(self.library.lib.cul_copy(self.library.stream, C.c_void_p(to), C.c_void_p(source), C.c_uint64(count)))
        self.library.synchronize()

    def free(self):
        if self.pointer:
            self.library.lib.cul_memory_free(self.library.device, self.pointer)
            self.pointer = None

    __del__ = free


class DeviceInfo(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("backend", C.c_int32), ("device_type", C.c_int32), ("device_index", C.c_int32)] + [
        (f, C.c_int32) for f in ("compute_major", "compute_minor", "multiprocessors", "shared_bytes_per_block")] + [
        ("l2_bytes", C.c_uint64), ("memory_bytes", C.c_uint64), ("name", C.c_char * 128), ("detail", C.c_char * 256)]


class Library:
    """One device of the library, and one stream."""

    def __init__(self, path, backend):
        self.lib = C.CDLL(path)
        self.lib.cul_last_error.restype = self.lib.cul_last_plan.restype = C.c_char_p
        self.lib.cul_last_workspace_bytes.restype = C.c_uint64
        self.backend, self.device, self.stream = backend, C.c_void_p(), C.c_void_p()
        count, reason = C.c_int32(), C.c_char_p()
        self.check(self.lib.cul_backend_devices(BACKENDS[backend], C.byref(count), C.byref(reason)))
        if count.value == 0:
            raise SystemExit(f"no {backend} device: {(reason.value or b'').decode()}")
        self.check(self.lib.cul_device_open(BACKENDS[backend], 0, None, C.byref(self.device)))
        self.check(self.lib.cul_stream_create(self.device, C.byref(self.stream)))
        self.info = DeviceInfo(C.sizeof(DeviceInfo))
        self.check(self.lib.cul_device_get_info(self.device, C.byref(self.info)))
        self.workspace = None

    def check(self, status):
        if status in (UNSUPPORTED, ARCH):
            raise Unsupported(self.lib.cul_last_error().decode())
        if status != OK:
            raise RuntimeError(f"status {status}: {self.lib.cul_last_error().decode()}")

    def has(self, op):
        return hasattr(self.lib, "cul_" + op)

    def array(self, dtype, *shape):
        return Array(self, dtype, shape)

    def args(self, op, **values):
        """The op's args struct with arrays and numbers by name."""
        args = ARGS[op]()
        args.call.struct_size = C.sizeof(args)
        args.arrays = [v for v in values.values() if isinstance(v, Array)]  # kept alive
        for name, value in values.items():
            setattr(args, name, C.pointer(value.tensor) if isinstance(value, Array) else value)
        return args

    def enqueue(self, op, args):
        if self.workspace:
            args.call.workspace, args.call.workspace_bytes = self.workspace.pointer, self.workspace.bytes
        status = getattr(self.lib, "cul_" + op)(self.stream, C.byref(args))
        if status == WORKSPACE:
            self.synchronize()
            self.workspace = self.array("u8", self.lib.cul_last_workspace_bytes())
            return self.enqueue(op, args)
        self.check(status)

    def plan(self, op, args):
        """What the op would launch, and why."""
        flags = args.call.flags
        args.call.flags = flags | PLAN_ONLY
        self.enqueue(op, args)
        args.call.flags = flags
        return self.lib.cul_last_plan().decode()

    def synchronize(self):
        self.check(self.lib.cul_stream_synchronize(self.stream))

    def capture(self, work):
        """What `work` enqueues, recorded as a graph."""
        graph = C.c_void_p()
        self.check(self.lib.cul_graph_begin_capture(self.stream))
        try:
            work()
        except BaseException:
            self.lib.cul_graph_abort_capture(self.stream)
            raise
        self.check(self.lib.cul_graph_end_capture(self.stream, C.byref(graph)))
        return graph

    def destroy_graph(self, graph):
        self.synchronize()
        self.check(self.lib.cul_graph_destroy(graph))

    def time_graph(self, graph):
        """Milliseconds of one launch, by the device's events."""
        start, end, ms = C.c_void_p(), C.c_void_p(), C.c_double()
        for event in (start, end):
            self.check(self.lib.cul_event_create(self.device, C.byref(event)))
        self.check(self.lib.cul_event_record(start, self.stream))
        self.check(self.lib.cul_graph_launch(graph, self.stream))
        self.check(self.lib.cul_event_record(end, self.stream))
        self.synchronize()
        self.check(self.lib.cul_event_elapsed_ms(start, end, C.byref(ms)))
        for event in (start, end):
            self.check(self.lib.cul_event_destroy(event))
        return ms.value

    def pack(self, q, scales, bits, group, operand=0, sparsity=0, host_q=None):
        """Packs plain symmetric integers q [N,K]: packed, packed_scales, group. host_q: q's numbers, for a plan that reads them."""
        n, k = q.shape
        c = Checkpoint(C.sizeof(Checkpoint), 0, bits, group, 0, sparsity, operand, 0, n, k, C.pointer(q.tensor), C.pointer(scales.tensor))
        if host_q is not None:
            shape = (C.c_int64 * 2)(n, k)
            host = Tensor(host_q.ctypes.data, DEVICE_TYPES["cpu"], 0, 2, q.tensor.code, 8, 1, shape, None, 0)
            c.qweight = C.pointer(host)
        plan = PackPlan(C.sizeof(PackPlan))
        self.check(self.lib.cul_pack_plan(self.device, C.byref(c), C.byref(plan), None, None))
        c.qweight = C.pointer(q.tensor)
        packed = self.array("f8e4m3" if q.dtype == "f8e4m3" else "u8", plan.packed_bytes)
        packed_scales = self.array(scales.dtype, plan.groups, plan.scale_columns)
        args = self.args("pack_weights", packed=packed, packed_scales=packed_scales, packed_group=plan.group)
        args.checkpoint = C.pointer(c)
        self.enqueue("pack_weights", args)
        self.synchronize()
        return packed, packed_scales, plan.group
