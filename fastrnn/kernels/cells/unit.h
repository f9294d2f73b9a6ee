// What a cell sees: one vector V of hidden units at one time step. The driver fills the members that
// the cell's traits ask for and reads back what it computes; the rest is never loaded.
//
// A cell is a struct of constants and static functions:
//   kGates         gates, in PyTorch's order
//   kSaved         values a unit saves for backward
//   kHasC          a second state c (LSTM)
//   kPeephole      three peephole weights a unit, for i, f, o
//   kLinearBeforeReset    the last gate's recurrent part stays apart from its input part (GRU, reset
//                         after; ONNX's linear_before_reset)
//   kResetBefore   the recurrent product of the last gate is over r * h (GRU, reset before)
//   kSavesH        backward reads h itself
//   kNeedsHPrev    forward and backward read the state before
//   kOptions       it computes what the unit's options say
//   kGateGrads     blocks of pre-activation gradients
//   input_block(g) the block, among the first kGates, that holds gate g's gradient of the input side
//   kRecurrentGradOffset  from this block on, kGates blocks hold those of the recurrent side, in gate
//                         order
//   forward(unit), backward(unit)

template <class V>
struct Unit {
  V a[4];       // forward: pre-activations of the gates, input and recurrent part summed
  V recurrent;  // kLinearBeforeReset: the recurrent part of the last gate; a[] has the input part
  V peephole[3];
  V saved[4];        // forward out, backward in
  V h_prev, c_prev;  // state before the step
  V h, c;            // state after it: forward out, backward in
  V dh, dc;          // backward: gradients of h and c; dc becomes the gradient of c_prev
  V dgates[4];       // backward out: gradients of the pre-activations
  V dh_direct;       // kNeedsHPrev: the part of dh_prev that does not pass the recurrent weights
  CellOptions<typename V::Real> options;  // kOptions
};
