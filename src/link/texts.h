/*
 * texts.h
 *		Which statements were sent on a connection before?
 */
#ifndef PS_LINK_TEXTS_H
#define PS_LINK_TEXTS_H

#include "postgres.h"

/* A text that was sent on a connection, with parameters of these types. */
typedef struct PsText
{
	uint64		hash;			/* hash key: of text, types, shape of the result */
	uint64		shape;
	int			name;			/* s<name> is prepared; 0 = it is not */
	char	   *sql;
	int			n;				/* parameters */
	Oid		   *types;			/* n */
} PsText;

typedef struct PsTexts PsTexts;

/*
 * ps_texts_find
 *		The entry of a text with n parameters of these types and a result of this
 *		shape; *found tells whether it was there.  NULL when another one has
 *		their hash.  *texts may be NULL: none yet.
 */
extern PsText *ps_texts_find(PsTexts **texts, const char *sql, int n, const Oid *types,
							 uint64 shape, bool *found);

/* Are there so many that they should be forgotten? */
extern bool ps_texts_is_full(const PsTexts *texts);

/* Frees all of them. */
extern void ps_texts_forget(PsTexts **texts);

#endif
