#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/completion.h"
#include "engine/kept_contexts.h"
#include "engine/policy.h"
#include "engine/swap_space.h"

namespace contexture {

using TextId = uint64_t;

struct SchedulerOptions {
  uint64_t step_ns = 0;                       // a step takes no longer, as far as can be told; 0: as long as it takes
  size_t swap_bytes = 0;                      // of memory for contexts of texts that are preempted
  std::function<uint64_t()> clock = nullptr;  // nanoseconds, of any beginning; nothing: the machine's steady clock
};

/// How a text is run.
struct TextOptions {
  std::string name_space = {};      // texts share what the cache holds of prompts within one alone
  std::optional<KeptId> kept = {};  // a context that it goes on in, and leaves what it holds to
  bool as_kept = false;             // with that context's namespace and rotation, in place of these
  size_t planned_tokens = 0;        // that what it begins may grow to, where that is more than its own
};

/// What has happened so far, and what there is now.
struct SchedulerCounts {
  size_t running = 0, waiting = 0;
  uint64_t steps = 0, preemptions = 0, swaps = 0;
  uint64_t prompt_tokens = 0, reused_tokens = 0, generated_tokens = 0;
  StepRates rates = {};
};

/// Runs many texts over one executor (continuous batching, Orca, OSDI 2022): every step carries chunks of some prompts
/// and single tokens of others. What of whom is the policy's (engine/policy.h). Each gets the text that it has alone.
///
/// Who came first is admitted first, once the cache has room for all its tokens and for all that run to grow a little.
/// Where the cache is full nevertheless, contexts that nobody uses are given up, then the youngest that runs is
/// preempted: its sequence is freed, or swapped out where that is sooner, and it waits to be admitted again. Then its
/// tokens, the generated ones too, are run again like a prompt, but for those that the cache still holds. The oldest is
/// never preempted, so each ends some time. One that is alone and still finds the cache too small ends with
/// FinishReason::context.
///
/// What goes wrong with one text (its callback throws, its numbers overflow) ends that one, and leaves nothing of it
/// for others to find. It knows no thread: every member is called from the one that steps.
class Scheduler {
 public:
  /// All must outlive this. The tokenizer explains what a prompt has in common with others; it may be null.
  Scheduler(Executor& executor, const Tokenizer* tokenizer, const SchedulerOptions& options = {});
  ~Scheduler();

  /// Queues a text, also from within a callback.
  TextId submit(std::unique_ptr<Text> text, const TextOptions& options = {});
  /// The same for a completion. Throws Error as Completion's constructor.
  TextId submit(const Submission& submission, const TextOptions& options = {});
  /// Ends a text at the next step. One that is not there has ended already.
  void cancel(TextId id);
  /// Ends all of them with an error.
  void fail_all(const std::exception_ptr& error);

  /// One step; false where nothing is left to do, or all that waits must wait until a kept context is unpinned. Throws
  /// Error where the executor fails: of what it holds nothing is known any more.
  bool step();

  KeptContexts& kept() { return kept_; }
  /// An empty sequence for a context that is to be kept; idle ones are given up for it. Nothing where there is no room.
  std::optional<SequenceId> create(uint64_t key);
  uint64_t key_of(const std::string& name_space, RotationId rotation);
  Executor& executor() { return executor_; }
  SchedulerCounts counts() const;

 private:
  struct Member {
    TextId id;
    std::unique_ptr<Text> text;
    std::optional<KeptId> kept;
    size_t inherited = 0;  // tokens that its kept context had in common with it when it began
    uint64_t key = 0;
    RotationId rotation = 0;
    SequenceId sequence = KeptContexts::kNone;
    struct Refusal {
      size_t free_tokens;
      uint64_t clock;  // of kept contexts
    };
    std::optional<Refusal> refused = {};  // there was no room for it then
    std::optional<SwapSpace::Ticket> swapped = {};
    size_t remembered = 0;  // tokens that the books remembered of it when it was swapped out
    bool began = false, cancelled = false, failed = false;
  };
  /// What a step carries of one: tokens that follow each other.
  struct Part {
    Member* member;
    size_t first, count, rows;
  };

  void finish_cancelled();
  void collect_finished();
  void admit();
  bool is_alone() const;
  bool has_more_room_than(const Member::Refusal& refusal) const;
  size_t common_with_kept(const Member& member) const;
  bool begin(Member& member, bool alone);
  bool give_sequence(Member& member, bool alone, PrefixReport& prefix);
  bool has_room_for(const Member& member) const;
  void take_sequence_back(Member& member);
  PrefixReport find_prefix(Member& member);
  PrefixReport go_on_in_kept(Member& member);
  void assemble_step();
  void add_part(Member& member, size_t count);
  void preempt_youngest();
  bool swap_in(Member& member);
  void forward();
  std::vector<Rows> rows_of_parts(const StepResult& result, std::vector<std::exception_ptr>& errors) const;
  void look_at(const std::vector<Rows>& rows, std::vector<std::exception_ptr>& errors);
  void take_from(const Part& part, bool has_rows);
  void release(Member& member, bool failed);
  void fail(Member& member, const std::exception_ptr& error);
  template <class Body>
  void guarded(Member& member, const Body& body);

  Executor& executor_;
  const Tokenizer* tokenizer_;
  const SchedulerOptions options_;
  KeptContexts kept_;
  SwapSpace swap_;
  std::map<std::string, uint64_t> namespaces_, older_namespaces_;  // their numbers
  uint64_t next_namespace_ = 0;
  std::deque<std::unique_ptr<Member>> waiting_;  // both in the order in which they came: all that run before all that
  std::deque<std::unique_ptr<Member>> running_;  // wait
  TextId next_ = 1;
  SchedulerCounts counts_;
  std::vector<Candidates> scratch_;  // (texts_looking)

  // The step that is being put together.
  std::vector<Wish> wishes_;
  std::vector<size_t> shares_;
  std::vector<Part> parts_;
  StepTokens step_;
  size_t prompt_tokens_ = 0;
};

}  // namespace contexture
