// Without <algorithm>: what the standard library inlines is shared by the linker.

FASTRNN_FN Index smaller(Index a, Index b) { return a < b ? a : b; }
FASTRNN_FN Index larger(Index a, Index b) { return a > b ? a : b; }
