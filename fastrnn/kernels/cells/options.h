// What the cells with options compute otherwise: `Options` of fastrnn/cellmath, as numbers. Includes
// nothing, and is read by the C++ drivers too.

enum class Activation { tanh, sigmoid, relu, hard_sigmoid };  // in the order of ops.ACTIVATIONS

template <class Real>
struct CellOptions {
  Activation gate;       // of an LSTM's i, f, o and of a GRU's r, z
  Activation candidate;  // of an LSTM's g, a GRU's n and an RNN's h
  Activation output;     // of an LSTM's c
  Real slope;            // of hard_sigmoid
  Real clip;             // pre-activations are clipped to -clip .. clip; or infinity
  bool coupled;          // LSTM: f = 1 - i
};
