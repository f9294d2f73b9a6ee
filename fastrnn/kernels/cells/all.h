// The cells, in the order of the extension's tables: F(name, type). One line here and one in
// fastrnn/cellmath/__init__.py is all that a new cell adds outside its own two files.

#define FASTRNN_CELLS(F)       \
  F(rnn_tanh, Rnn<false>)      \
  F(rnn_relu, Rnn<true>)       \
  F(lstm, Lstm<false>)         \
  F(lstm_peephole, Lstm<true>) \
  F(gru, GruResetAfter)        \
  F(gru_reset_before, GruResetBefore)
