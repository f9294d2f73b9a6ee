// The headers of all cells; fastrnn/backends/cuda/compile.py reads this list too.

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
