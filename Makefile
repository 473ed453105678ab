# payshard: build with PGXS; check, demo and bench through scripts/.
#
#   make                     payshard.so                     (PAYSHARD_FAULTS=1: with fault points)
#   make install             into the PostgreSQL of PG_CONFIG
#   make check [T=...]       everything under test/, in a private copy of PostgreSQL
#   make check-model         the protocol model (test/model), searched further than make check does
#   make chaos               faults at random under load for CHAOS_SECONDS (600); CHAOS_SEED repeats a run
#   make demo, demo-stop     a cluster of three servers on this machine
#   make bench               against plain and synchronously replicated PostgreSQL
#
# check, check-model, chaos, demo and bench install what is missing (scripts/bootstrap), so they
# must work before there is a PGXS to include.

PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)

OWN_GOALS := check check-model tidy chaos demo demo-stop bench
ifneq ($(filter $(OWN_GOALS),$(MAKECMDGOALS)),)

.PHONY: $(OWN_GOALS)
# T is what to run: "make check T=test/t/100_x.pl", "make check T='tidy regress'".
check:
	@T='$(T)' scripts/check
check-model:
	@scripts/bootstrap check && test/model/run full
tidy:
	@T=tidy scripts/check
chaos:
	@CHAOS=1 CHAOS_SECONDS='$(CHAOS_SECONDS)' CHAOS_SEED='$(CHAOS_SEED)' scripts/check
demo:
	@scripts/bootstrap build && scripts/demo
demo-stop:
	@scripts/demo stop
bench:
	@scripts/bootstrap build && bench/run
# "make all check": the goals that are not our own, in a make of their own.
$(filter-out $(OWN_GOALS),$(MAKECMDGOALS)):
	+@$(MAKE) --no-print-directory $@

else

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error PostgreSQL's build files (PGXS) are missing: run scripts/bootstrap, or set PG_CONFIG)
endif

PS_SRCDIR := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

# Every kind of build keeps its objects apart, so that changing between them
# costs one link and never mixes objects.
PS_KIND := plain
ifdef PAYSHARD_FAULTS
PS_KIND := $(PS_KIND)-faults
PG_CPPFLAGS += -DPAYSHARD_FAULTS
endif
ifdef PAYSHARD_ASSERTS
PS_KIND := $(PS_KIND)-asserts
PG_CPPFLAGS += -DUSE_ASSERT_CHECKING
endif
PS_OBJDIR := build/obj/$(PS_KIND)

PS_SRCS := $(sort $(patsubst $(PS_SRCDIR)/%,%,$(wildcard $(PS_SRCDIR)/src/*.c $(PS_SRCDIR)/src/*/*.c)))

EXTENSION = payshard
MODULE_big = payshard
OBJS = $(PS_SRCS:%.c=$(PS_OBJDIR)/%.o)
# The install script is made of the parts in sql/install; update scripts stand in sql/ as they are.
PS_SCRIPT := sql/payshard--$(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(PS_SRCDIR)/payshard.control).sql
PS_PARTS := $(sort $(patsubst $(PS_SRCDIR)/%,%,$(wildcard $(PS_SRCDIR)/sql/install/*.sql)))
DATA_built = $(PS_SCRIPT)
DATA = $(sort $(patsubst $(PS_SRCDIR)/%,%,$(wildcard $(PS_SRCDIR)/sql/payshard--*--*.sql)))

# Symbols are hidden unless marked: PostgreSQL 15 loads libraries RTLD_GLOBAL,
# where two extensions could capture each other's functions.  15 leaves
# PGDLLEXPORT empty, so we say what it means.
PG_CPPFLAGS += -I$(PS_SRCDIR)/src -I$(libpq_srcdir) \
	-DPGDLLEXPORT='__attribute__((visibility("default")))'
PG_CFLAGS += -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -fvisibility=hidden
SHLIB_LINK = $(libpq)

REGRESS = $(sort $(patsubst $(PS_SRCDIR)/test/sql/%.sql,%,$(wildcard $(PS_SRCDIR)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(PS_SRCDIR)/test

EXTRA_CLEAN = build/obj

# No bitcode for JIT: it would double the build and nothing here is inlined.
override with_llvm = no
include $(PGXS)

$(PS_OBJDIR)/%.o: %.c $(PS_SRCDIR)/Makefile
	@mkdir -p $(@D)
	$(COMPILE.c) -MMD -MP -o $@ $<
-include $(OBJS:.o=.d)

$(PS_SCRIPT): $(PS_PARTS) $(PS_SRCDIR)/Makefile
	@mkdir -p $(@D)
	cat $(filter %.sql,$^) >$@.new && mv $@.new $@

# The stamp says of which kind and from which sources payshard.so was last
# linked.  Made while make reads this: PGXS declares all files .SECONDARY, so
# that a missing one alone makes nothing out of date.
PS_STAMP := build/obj/linked-$(PS_KIND)-$(shell echo '$(PS_SRCS)' | cksum | tr -d ' ')
ifeq ($(wildcard $(PS_STAMP)),)
$(shell mkdir -p build/obj && rm -f build/obj/linked-* && touch $(PS_STAMP))
endif
payshard.so: $(PS_STAMP)

endif
