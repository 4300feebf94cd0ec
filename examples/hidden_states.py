"""The residual stream of every layer, from Python through ctypes: no package but the standard library.

    python3 hidden_states.py libaspis.so MODEL "some text"

prints, for each layer, the mean length of its vectors, and checks that vectors put in by hand (here: the first layer's input,
doubled) change what comes out."""
import array
import ctypes
import sys


def load(path):
    lib = ctypes.CDLL(path)
    lib.aspis_error.restype = ctypes.c_char_p
    lib.aspis_version.restype = ctypes.c_char_p
    return lib


def check(lib, code):
    if code:
        sys.exit(f"{lib.aspis_error().decode()} ({code})")


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: hidden_states.py libaspis.so MODEL TEXT")
    lib = load(sys.argv[1])
    model = ctypes.c_void_p()
    check(lib, lib.aspis_open(sys.argv[2].encode(), None, ctypes.byref(model)))
    text = sys.argv[3].encode()
    tokens, n = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_int64()
    check(lib, lib.aspis_encode(model, text, ctypes.c_size_t(len(text)), ctypes.byref(tokens), ctypes.byref(n)))

    n_layer, width = lib.aspis_n_layer(model), lib.aspis_d_model(model)
    hidden = (ctypes.c_float * (n_layer * n.value * width))()
    check(lib, lib.aspis_hidden(model, tokens, n, hidden))
    for layer in range(n_layer):
        total = 0.0
        for t in range(n.value):
            at = (layer * n.value + t) * width
            total += sum(x * x for x in hidden[at : at + width]) ** 0.5
        print(f"layer {layer}: mean length {total / n.value:.4f}")

    # The last layer's vectors as a prompt of their own, as they are and doubled.
    last = (n_layer - 1) * n.value * width
    rows = []
    for factor in (1.0, 2.0):
        state = ctypes.c_void_p()
        check(lib, lib.aspis_state_new(model, 1, ctypes.c_int64(n.value), ctypes.byref(state)))
        vectors = array.array("f", (factor * x for x in hidden[last : last + n.value * width]))
        logits = (ctypes.c_float * lib.aspis_n_logits(model))()
        buffer = (ctypes.c_float * len(vectors)).from_buffer(vectors)
        check(lib, lib.aspis_read_embedded(state, 0, buffer, n, logits))
        rows.append(list(logits))
        lib.aspis_state_free(state)
    print(f"doubled vectors move the logits by up to {max(abs(a - b) for a, b in zip(*rows)):.4f}")
    lib.aspis_free(tokens)
    lib.aspis_close(model)


main()
