/* aspis launch -n N -- train ...: N ranks on this machine, by mpirun, which is asked for what it does not do by itself:
 * to run as root, to leave threads where they like and ranks be more than cores, and to be silent. mpirun gives ranks two
 * seconds after a TERM or INT, too few to save in; here both become USR1, which it hands on and ranks stop by. Its exit
 * codes, those of whichever rank was first, become ours. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/cmd/command.h"
#include "train/format.h"
#include "train/log.h"

static volatile sig_atomic_t child; /* mpirun's process; it leads a group of its own */
static volatile sig_atomic_t interrupts;

static void on_signal(int number) {
  if (child <= 0) return;
  if (number == SIGINT && interrupts++ > 0) kill(-child, SIGKILL); /* as a rank alone does */
  else kill(child, SIGUSR1);
}

static void pass_signals_on(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
}

static Status find_mpirun(void) {
  const char *path = getenv("PATH");
  char *folders = base_strdup(path ? path : "/usr/bin"), *rest = folders;
  bool found = false;
  for (char *folder; (folder = strsep(&rest, ":")) && !found;) {
    char *file = base_format("%s/mpirun", folder);
    found = access(file, X_OK) == 0;
    free(file);
  }
  free(folders);
  return found ? STATUS_OK : status_fail(CODE_USAGE, "launch: there is no mpirun here; install openmpi-bin");
}

static NO_RETURN void become_mpirun(const Command *command, const char *program, const char *ranks, pid_t parent) {
  const char *const flags[] = {"mpirun",  "-n",   ranks, "--bind-to", "none", "--oversubscribe", "--allow-run-as-root",
                               "--quiet", program};
  enum { N_FLAGS = sizeof flags / sizeof *flags };
  char **argv = base_zalloc((size_t)(N_FLAGS + command->n_args + 1) * sizeof *argv);
  for (int i = 0; i < N_FLAGS; i++) argv[i] = base_strdup(flags[i]);
  for (int i = 0; i < command->n_args; i++) argv[N_FLAGS + i] = base_strdup(command->args[i]);
  setpgid(0, 0); /* a terminal's INT is ours to hand on */
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(CODE_PEER);
  execvp("mpirun", argv);
  fprintf(stderr, "aspis: launch: mpirun: %s\n", strerror(errno));
  _exit(CODE_USAGE);
}

/* Each rank its share of the cores. */
static void share_threads(int64_t n) {
  char text[32];
  const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  snprintf(text, sizeof text, "%lld", (long long)max_i64(1, cores / n));
  setenv("OMP_NUM_THREADS", text, 0);
}

/* What the ranks told of a failure, and whether; mpirun may have killed them before status.json said it. */
static bool was_told(const char *path) {
  StrBuf text = {0};
  Status status = strbuf_load(&text, path);
  const bool told = status.code == CODE_OK;
  status_clear(&status);
  char *rest = text.data, *directory = strsep(&rest, "\n"), *line = rest ? strsep(&rest, "\n") : NULL;
  if (told && directory && line && *line) runlog_end(directory, CODE_PEER, line);
  free(text.data);
  return told;
}

static Status outcome(int state, bool told) {
  const int code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  if (interrupts > 1) return (Status){.code = (Code)(128 + SIGINT)};
  /* mpirun's own failures are 1, a rank's death 128 and more; no rank ends with 1 */
  const bool lost = code == 1 || code >= 128;
  if (!lost || told) return (Status){.code = lost ? CODE_PEER : (Code)code};
  return status_fail(CODE_PEER,
                     "launch: mpirun ended with code %d before the ranks watched each other; run it by hand to "
                     "see what it says, or look for a rank that was killed, by lack of memory for one",
                     code);
}

static Status cmd_launch(const Command *command) {
  const char *ranks = command_text(command, "n", NULL);
  int64_t n = 0;
  if (!ranks) return status_fail(CODE_USAGE, "launch: -n: found none, expected the number of ranks");
  TRY(command_int(command, "n", 1, 1 << 16, &n));
  if (strcmp(command->args[0], "train") != 0)
    return status_fail(CODE_USAGE, "launch: found \"%s\", expected train: nothing else runs on several ranks",
                       command->args[0]);
  TRY(find_mpirun());
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return status_fail(CODE_USAGE, "launch: the program does not find itself: %s", strerror(errno));
  program[length] = '\0';
  char verdict[] = "/tmp/aspis-launch-XXXXXX"; /* ranks that tell of a failure leave a file in it */
  if (!mkdtemp(verdict)) return status_fail(CODE_DATA, "launch: %s: %s", verdict, strerror(errno));
  char *told = base_format("%s/told", verdict);
  setenv("ASPIS_VERDICT", told, 1);
  share_threads(n);
  pass_signals_on();
  fflush(NULL);
  const pid_t parent = getpid(), pid = fork();
  if (pid == 0) become_mpirun(command, program, ranks, parent);
  child = pid;
  int state = 0;
  while (pid > 0 && waitpid(pid, &state, 0) < 0 && errno == EINTR) continue;
  child = 0;
  Status status = pid > 0 ? outcome(state, was_told(told))
                          : status_fail(CODE_MEMORY, "launch: cannot start a process: %s", strerror(errno));
  unlink(told);
  rmdir(verdict);
  free(told);
  return status;
}

const CommandSpec command_launch = {
    .name = "launch",
    .summary = "train on several ranks of this machine",
    .usage = "launch -n N -- train CONFIG [options]",
    .examples = {"aspis launch -n 2 -- train configs/quickstart_ranks.yaml",
                 "aspis launch -n 8 -- train c.yaml --resume auto"},
    .options = (const OptionSpec[]){{"n", "N", "ranks: they share the cores, or have a GPU each", false}, {0}},
    .args = "the command to run, after --",
    .min_args = 1,
    .max_args = -1,
    .run = cmd_launch,
};
