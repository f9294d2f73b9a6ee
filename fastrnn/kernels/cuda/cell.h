// The cell that this program is of, from its option FASTRNN_CELL: a name in cells/all.h.

#define FASTRNN_ALIAS(name, type) using cell_##name = type;
FASTRNN_CELLS(FASTRNN_ALIAS)
#define FASTRNN_JOIN(a, b) a##b
#define FASTRNN_NAMED(name) FASTRNN_JOIN(cell_, name)

using V = Value<Real>;
using Cell = FASTRNN_NAMED(FASTRNN_CELL);
