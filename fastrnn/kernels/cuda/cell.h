// The cell that this program is of, from its option FASTRNN_CELL: a name in cells/all.h; and the cell's
// options, if it has some, from FASTRNN_OPTIONS.

#define FASTRNN_ALIAS(name, ...) using cell_##name = __VA_ARGS__;
FASTRNN_CELLS(FASTRNN_ALIAS)
#define FASTRNN_JOIN(a, b) a##b
#define FASTRNN_NAMED(name) FASTRNN_JOIN(cell_, name)

using V = Value<Real>;
using Cell = FASTRNN_NAMED(FASTRNN_CELL);

// Right before what looks at them, so that the compiler sees constants there.
FASTRNN_FN void set_options([[maybe_unused]] Unit<V>& u) {
#ifdef FASTRNN_OPTIONS
  u.options = {FASTRNN_OPTIONS};
#endif
}
