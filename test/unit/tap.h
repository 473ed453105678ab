/*
 * tap.h
 *		The little of the Test Anything Protocol that the unit tests need.
 *
 * Each test program includes it once; `ok` counts, `done_testing` tells.
 */
#ifndef PS_TEST_TAP_H
#define PS_TEST_TAP_H

static int	n_tests = 0;
static int	n_failed = 0;

/* One test point; `what` says what holds when it passes. */
static inline bool
ok(bool passed, const char *what)
{
	n_tests++;
	n_failed += !passed;
	printf("%sok %d - %s\n", passed ? "" : "not ", n_tests, what);
	return passed;
}

/* The plan; returns the program's exit status. */
static inline int
done_testing(void)
{
	printf("1..%d\n", n_tests);
	return n_failed != 0;
}

/* A generator of its own, so that a run is the same everywhere. */
static inline uint64
next_random(uint64 *state)
{
	uint64		x = (*state += UINT64CONST(0x9e3779b97f4a7c15));

	x = (x ^ (x >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

#endif
