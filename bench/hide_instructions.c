// Loaded before a program (LD_PRELOAD), makes this processor look like an older one to it, and to
// every program that it starts. Linux lets a process fault on the CPUID instruction, where the
// processor can; the handler below answers it without the hidden instruction sets.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID_SET 0x1012
#define BIT(n) (1u << (n))

typedef struct {
  uint32_t a, b, c, d;
} Registers;

static int only_avx2;  // AVX-512 is hidden, too

static long set_faulting(int faulting) {
  return syscall(SYS_arch_prctl, ARCH_CPUID_SET, !faulting);
}

// Clears the bits of instruction sets; see "CPUID" in Intel's manual, volume 2A.
static void hide(uint32_t leaf, uint32_t subleaf, Registers* r) {
  if (leaf == 7 && subleaf == 0) {
    r->d &= ~(BIT(22) | BIT(23) | BIT(24) | BIT(25));  // AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8
    if (only_avx2) {
      // AVX-512: F, DQ, IFMA, PF, ER, CD, BW, VL
      r->b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
      r->c &=
          ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));  // VBMI, VBMI2, VNNI, BITALG, POPCNT
      r->d &= ~(BIT(2) | BIT(3) | BIT(8));                   // 4VNNIW, 4FMAPS, VP2INTERSECT
    }
  }
  if (leaf == 7 && subleaf == 1) {
    r->a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));  // AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA
    // AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10
    r->d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
  }
}

static int next_sigaction(int number, const struct sigaction* act, struct sigaction* old) {
  int (*next)(int, const struct sigaction*, struct sigaction*) = dlsym(RTLD_NEXT, "sigaction");
  return next(number, act, old);
}

static void on_fault(int number, siginfo_t* info, void* context) {
  greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)r[REG_RIP];
  if (info->si_code <= 0 || code[0] != 0x0f || code[1] != 0xa2) {  // another fault: end as usual
    struct sigaction usual = {.sa_handler = SIG_DFL};
    next_sigaction(number, &usual, NULL);
    return;
  }
  uint32_t leaf = r[REG_RAX], subleaf = r[REG_RCX];
  Registers answer;
  set_faulting(0);
  __cpuid_count(leaf, subleaf, answer.a, answer.b, answer.c, answer.d);
  set_faulting(1);
  hide(leaf, subleaf, &answer);
  r[REG_RAX] = answer.a;
  r[REG_RBX] = answer.b;
  r[REG_RCX] = answer.c;
  r[REG_RDX] = answer.d;
  r[REG_RIP] += 2;
}

// The handler stays: compilers and test tools set one of their own.
int sigaction(int number, const struct sigaction* act, struct sigaction* old) {
  return next_sigaction(number, number == SIGSEGV ? NULL : act, old);
}

sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
  return sigaction(number, &act, &old) ? SIG_ERR : old.sa_handler;
}

__attribute__((constructor)) static void begin(void) {
  const char* level = getenv("XTREMELY_BENCH_INSTRUCTIONS");
  if (!level) return;
  only_avx2 = !strcmp(level, "avx2");
  struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  next_sigaction(SIGSEGV, &act, NULL);
  if (set_faulting(1)) {
    fputs("this processor or system cannot hide instruction sets\n", stderr);
    _exit(1);
  }
}
