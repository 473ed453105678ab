/*
 * preload.c: what a server of the chaos harness is told by the kernel; LD_PRELOAD for each node.
 *
 * CHAOS_CONTROL names a file of four numbers of 64 bits (ChaosCluster.pm writes it), mapped at start, so that
 * asking costs nothing:
 *
 *	0	every so many-th fsync, fdatasync fails with EIO; 0: none
 *	1	how long each of them takes in addition, us
 *	2	how far the wall clock is from the true one, us.  CLOCK_BOOTTIME and
 *		CLOCK_MONOTONIC are never moved, as real jumps do not move them either
 *	3	1: writes that would make a file longer fail with ENOSPC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum
{
	FSYNC_FAILS,
	FSYNC_US,
	CLOCK_US,
	DISK_FULL,
	N_WORDS
};

static int64_t nothing[N_WORDS];
static const volatile int64_t *control = nothing;
static unsigned n_syncs;

static int	(*real_fsync) (int);
static int	(*real_fdatasync) (int);
static int	(*real_clock_gettime) (clockid_t, struct timespec *);
static int	(*real_gettimeofday) (struct timeval *, void *);
static ssize_t (*real_pwrite) (int, const void *, size_t, off_t);
static ssize_t (*real_pwritev) (int, const struct iovec *, int, off_t);
static int	(*real_fallocate) (int, off_t, off_t);

__attribute__((constructor))
static void
begin(void)
{
	const char *path = getenv("CHAOS_CONTROL");
	int			fd;
	void	   *mapped;

	real_fsync = (int (*) (int)) dlsym(RTLD_NEXT, "fsync");
	real_fdatasync = (int (*) (int)) dlsym(RTLD_NEXT, "fdatasync");
	real_clock_gettime = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	real_gettimeofday = (int (*) (struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
	real_pwrite = (ssize_t (*) (int, const void *, size_t, off_t)) dlsym(RTLD_NEXT, "pwrite64");
	real_pwritev = (ssize_t (*) (int, const struct iovec *, int, off_t)) dlsym(RTLD_NEXT, "pwritev64");
	real_fallocate = (int (*) (int, off_t, off_t)) dlsym(RTLD_NEXT, "posix_fallocate64");
	if (path == NULL || (fd = open(path, O_RDONLY)) < 0)
		return;
	mapped = mmap(NULL, N_WORDS * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED)
		control = mapped;
}

/* Is this one to fail?  Takes its time before. */
static int
sync_fails(void)
{
	int64_t		one_in = control[FSYNC_FAILS];

	if (control[FSYNC_US] > 0)
		usleep((useconds_t) control[FSYNC_US]);
	return one_in > 0 && ++n_syncs % (unsigned) one_in == 0;
}

int
fsync(int fd)
{
	if (sync_fails())
	{
		errno = EIO;
		return -1;
	}
	return real_fsync(fd);
}

int
fdatasync(int fd)
{
	if (sync_fails())
	{
		errno = EIO;
		return -1;
	}
	return real_fdatasync(fd);
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	int			result = real_clock_gettime(clock, t);
	int64_t		us = control[CLOCK_US];

	if (result == 0 && us != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
	{
		int64_t		ns = t->tv_nsec + us % 1000000 * 1000;

		t->tv_sec += us / 1000000 + (ns < 0 ? -1 : ns / 1000000000);
		t->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
	}
	return result;
}

int
gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	int			result = real_gettimeofday(t, zone);

	if (result == 0 && control[CLOCK_US] != 0)
	{
		int64_t		us = t->tv_sec * INT64_C(1000000) + t->tv_usec + control[CLOCK_US];

		t->tv_sec = us / 1000000;
		t->tv_usec = us % 1000000;
	}
	return result;
}

time_t
time(time_t *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (t != NULL)
		*t = now.tv_sec;
	return now.tv_sec;
}

/* Would a write up to there make the file longer, and may it not? */
static int
is_full(int fd, off_t end)
{
	struct stat s;

	if (!control[DISK_FULL] || fstat(fd, &s) != 0 || end <= s.st_size)
		return 0;
	errno = ENOSPC;
	return 1;
}

ssize_t
pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	return is_full(fd, at + size) ? -1 : real_pwrite(fd, data, size, at);
}

ssize_t
pwrite(int fd, const void *data, size_t size, off_t at)
{
	return is_full(fd, at + size) ? -1 : real_pwrite(fd, data, size, at);
}

ssize_t
pwritev64(int fd, const struct iovec *data, int n, off64_t at)
{
	off_t		size = 0;

	for (int i = 0; i < n; i++)
		size += data[i].iov_len;
	return is_full(fd, at + size) ? -1 : real_pwritev(fd, data, n, at);
}

ssize_t
pwritev(int fd, const struct iovec *data, int n, off_t at)
{
	return pwritev64(fd, data, n, at);
}

int
posix_fallocate64(int fd, off64_t at, off64_t size)
{
	return is_full(fd, at + size) ? ENOSPC : real_fallocate(fd, at, size);
}

int
posix_fallocate(int fd, off_t at, off_t size)
{
	return posix_fallocate64(fd, at, size);
}
