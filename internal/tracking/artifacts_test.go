package tracking_test

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

func read(t *testing.T, ctx context.Context, s *tracking.Service, path string) string {
	t.Helper()
	o, err := s.OpenArtifact(ctx, "flights", path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	b, err := io.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestArtifacts(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "r", 1)
		root, err := tracking.ProxyPath(r.ArtifactURI)
		if err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{"a.txt": "1", "model/MLmodel": "2", "model/data/x.bin": "3", "model-2/y": "4", "übung/ñ %.txt": "5"} {
			if _, err := s.PutArtifact(ctx, "flights", root+"/"+path, strings.NewReader(text)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if got := read(t, ctx, s, root+"/übung/ñ %.txt"); got != "5" {
			t.Errorf("read %q", got)
		}
		list := func(path string) (out []string) {
			t.Helper()
			_, all, err := s.ListRunArtifacts(ctx, "flights", r.ID, path)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				name := a.Path
				if a.Folder {
					name += "/"
				}
				out = append(out, name)
			}
			return out
		}
		if d := cmp.Diff([]string{"a.txt", "model/", "model-2/", "übung/"}, list("")); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"MLmodel", "data/"}, list("model")); d != "" {
			t.Error(d)
		}
		if got := list("a.txt"); len(got) != 0 {
			t.Errorf("a file has no files: %v", got)
		}
		// A path is a file or a folder.
		for _, clash := range []string{"model", "a.txt/b"} {
			_, err := s.PutArtifact(ctx, "flights", root+"/"+clash, strings.NewReader("x"))
			refused(t, err, fault.Invalid, "a path is either a file or a folder")
		}
		if _, err := s.PutArtifact(ctx, "flights", root+"/a.txt", strings.NewReader("over")); err != nil || read(t, ctx, s, root+"/a.txt") != "over" {
			t.Errorf("overwrite: %v", err)
		}
		_, err = s.OpenArtifact(ctx, "other", root+"/a.txt")
		refused(t, err, fault.NotFound, "No such artifact")
		_, err = s.PutArtifact(ctx, "other", root+"/a.txt", strings.NewReader("x"))
		refused(t, err, fault.NotFound, "Run with id="+r.ID+" not found")
		_, err = s.PutArtifact(storetest.As("vera"), "flights", root+"/a.txt", neverRead{t})
		refused(t, err, fault.Denied, "vera may not artifact.write")
		if err := s.DeleteArtifacts(ctx, "flights", root+"/model"); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"a.txt", "model-2/", "übung/"}, list("")); d != "" {
			t.Error(d)
		}
	})
}

type neverRead struct{ t *testing.T }

func (n neverRead) Read([]byte) (int, error) {
	n.t.Error("the body of a refused upload was read")
	return 0, io.EOF
}

func TestUploadInParts(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "r", 1)
		root, _ := tracking.ProxyPath(r.ArtifactURI)
		path := root + "/big.bin"
		up, err := s.CreateUpload(ctx, "flights", path)
		if err != nil {
			t.Fatal(err)
		}
		a, b := bytes.Repeat([]byte("a"), 300_000), bytes.Repeat([]byte("b"), 70_001)
		anyone := context.Background()
		if _, err := s.PutPart(anyone, "flights", up.ID, up.Token, 2, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		_, err = s.PutPart(anyone, "flights", up.ID, "wrong", 1, bytes.NewReader(a))
		refused(t, err, fault.Unauthenticated, "The upload token does not belong to this upload.")
		_, err = s.PutPart(anyone, "other", up.ID, up.Token, 1, bytes.NewReader(a))
		refused(t, err, fault.NotFound, "There is no multipart upload")
		_, err = s.CompleteUpload(ctx, "flights", up.ID, []int{1, 2})
		refused(t, err, fault.Invalid, "Part 1 of the multipart upload was not received.")
		if _, err := s.PutPart(anyone, "flights", up.ID, up.Token, 1, bytes.NewReader(a)); err != nil {
			t.Fatal(err)
		}
		got, err := s.CompleteUpload(ctx, "flights", up.ID, []int{1, 2})
		if err != nil || got.Size != 370_001 {
			t.Fatalf("%+v %v", got, err)
		}
		if read(t, ctx, s, path) != string(a)+string(b) {
			t.Error("the joined file differs")
		}
		_, err = s.CompleteUpload(ctx, "flights", up.ID, []int{1, 2})
		refused(t, err, fault.NotFound, "There is no multipart upload")
		if err := s.AbortUpload(ctx, "flights", up.ID); err != nil {
			t.Errorf("abort of what is done: %v", err)
		}
	})
}

func TestHostilePaths(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "/", "/etc/passwd", "..", "a/../b", "../../x", "a/..", "./a", "a/./b", "a//b", `a\b`, `..\x`, "C:/x", "c:", "file:x", "file:///etc/passwd", "s3://b/x", "a#b",
		"%2e%2e/x", "a/%2e%2e/b", "%252e%252e/x", "a%2f..%2fb", "%2fetc", "a%5cb", "a%23b", "a\x00b", "a\nb", "a%00b", "a%0ab", "\xff", "a%ff", "//a", strings.Repeat("a", 1025), "file%3a///x"} {
		if got, err := tracking.SafePath(p); !fault.Is(err, fault.Invalid) || fault.From(err).Public != "Invalid path" {
			t.Errorf("%q gave %q, %v", p, got, err)
		}
	}
	for _, p := range []string{"a", "a/b.c", "a b/ü", "a%zz", "100%", "x:y", "a/b:c", "...", "a..b", "m-1/model.pkl", "7/"} {
		want := strings.TrimSuffix(p, "/")
		if got, err := tracking.SafePath(p); err != nil || got != want {
			t.Errorf("%q gave %q, %v", p, got, err)
		}
	}
}

// Whatever is accepted is a plain relative path, also after any number of percent-decodings.
func FuzzSafePath(f *testing.F) {
	for _, s := range []string{"a/b", "%2e%2e/x", "a%252f..", "file:x", `a\..\b`, "%", "a/%zz/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := tracking.SafePath(s)
		if err != nil {
			return
		}
		for {
			if strings.HasPrefix(p, "/") || strings.ContainsAny(p, "\\#\x00\n") || strings.HasPrefix(strings.ToLower(p), "file:") {
				t.Fatalf("%q passed as %q", s, p)
			}
			for _, seg := range strings.Split(p, "/") {
				if seg == ".." || seg == "." || seg == "" {
					t.Fatalf("%q passed as %q", s, p)
				}
			}
			next, err := url.PathUnescape(p)
			if err != nil || next == p {
				return
			}
			p = next
		}
	})
}
