// Work that threads share without waiting for each other.
#pragma once

#include "runtime/threads.h"

namespace fastrnn {

// Runs task(rank, ranks) on up to `threads` threads; one where the work takes no longer than waking
// another does. microseconds: what it takes one thread, roughly.
template <class Task>
void share_out(int threads, double microseconds, const Task& task) {
  struct Job {
    const Task& task;
    int ranks;
    static void enter(void* self, int rank) {
      const Job& job = *static_cast<Job*>(self);
      job.task(rank, job.ranks);
    }
  };
  constexpr double worth_waking = 15;
  const ThreadTeam team(microseconds < worth_waking ? 1 : threads, microseconds);
  Job job{task, team.size()};
  team.run(team.size(), Job::enter, &job);
}

}  // namespace fastrnn
