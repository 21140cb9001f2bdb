/* Reads an order in XDR from stdin with the code that rpcgen made of order.x, and writes it to stdout again.
 * What it read goes to stderr as text. */

#include <stdio.h>
#include <stdlib.h>
#include "order.h"

static void die(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static void show_bytes(const char *name, const char *bytes, u_int count)
{
    fprintf(stderr, "%s=", name);
    for (u_int i = 0; i < count; i++)
        fprintf(stderr, "%02x", (unsigned char)bytes[i]);
    fprintf(stderr, "\n");
}

static void show_state(const state *s)
{
    switch (s->kind) {
    case 0: fprintf(stderr, "state=new\n"); break;
    case 1: fprintf(stderr, "state=paid %llu\n", (unsigned long long)s->state_u.paid); break;
    case 2: fprintf(stderr, "state=sent %s %u\n", s->state_u.sent.town, s->state_u.sent.door); break;
    case 3: fprintf(stderr, "state=split %u %u\n", s->state_u.split.first, s->state_u.split.letter); break;
    }
}

static void show(const order *o)
{
    fprintf(stderr, "open=%d small=%u negative=%d id=%llu balance=%lld\n", o->open, o->small, o->negative,
            (unsigned long long)o->id, (long long)o->balance);
    show_bytes("wide", o->wide, sizeof o->wide);
    fprintf(stderr, "weight=%g ratio=%g note=%s\n", o->weight, o->ratio, o->note);
    show_bytes("photo", o->photo.photo_val, o->photo.photo_len);
    show_bytes("shades", o->shades.shades_val, o->shades.shades_len);
    for (u_int i = 0; i < o->lines.lines_len; i++) {
        const line *l = &o->lines.lines_val[i];
        fprintf(stderr, "line=%s %u %d\n", l->sku, l->qty, l->price);
    }
    for (u_int i = 0; i < o->attributes.attributes_len; i++) {
        const attribute *a = &o->attributes.attributes_val[i];
        fprintf(stderr, "attribute=%s %lld\n", a->key, (long long)a->value);
    }
    fprintf(stderr, "grid=%d %d %d\n", o->grid[0], o->grid[1], o->grid[2]);
    for (u_int i = 0; i < o->states.states_len; i++)
        show_state(&o->states.states_val[i]);
    fprintf(stderr, "paint=%d coupon=", o->paint);
    fprintf(stderr, o->coupon ? "%u\n" : "none\n", o->coupon ? *o->coupon : 0);
    if (o->next) {
        fprintf(stderr, "next:\n");
        show(o->next);
    }
}

int main(void)
{
    static char in[65536], out[65536];
    size_t length = fread(in, 1, sizeof in, stdin);
    static order o;
    XDR xdr;

    xdrmem_create(&xdr, in, length, XDR_DECODE);
    if (!xdr_order(&xdr, &o))
        die("the order cannot be read");
    if (xdr_getpos(&xdr) != length)
        die("bytes are left over");
    show(&o);
    xdrmem_create(&xdr, out, sizeof out, XDR_ENCODE);
    if (!xdr_order(&xdr, &o))
        die("the order cannot be written");
    fwrite(out, 1, xdr_getpos(&xdr), stdout);
    return 0;
}
