// The cells, in the order of the extension's tables: F(name, type). A new cell adds one line here, one
// in headers.h and one in fastrnn/cellmath/__init__.py to its own two files, and no other
// (tests/test_new_cell.py).

#define FASTRNN_CELLS(F)                       \
  F(rnn_tanh, Rnn<Plain<>>)                    \
  F(rnn_relu, Rnn<Plain<true>>)                \
  F(lstm, Lstm<Plain<>, false>)                \
  F(lstm_peephole, Lstm<Plain<>, true>)        \
  F(gru, GruResetAfter<Plain<>>)               \
  F(gru_reset_before, GruResetBefore<Plain<>>) \
  F(rnn_general, Rnn<Chosen>)                  \
  F(lstm_general, Lstm<Chosen, false>)         \
  F(lstm_general_peephole, Lstm<Chosen, true>) \
  F(gru_general, GruResetAfter<Chosen>)        \
  F(gru_general_reset_before, GruResetBefore<Chosen>)
