// git-http serves a directory of bare Git repositories and a directory of files, for tests of sources.
//
//	/REPOSITORY.git   smart HTTP, clone and push
//	/files/PATH       a file, with Range and Content-Length
//	/plain/PATH       the same file from start to end, its length not told
//
// Whatever has a directory called private in its path asks for the user and the password.
package main

import (
	"bytes"
	"crypto/subtle"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve on")
	repositories := flag.String("repositories", "", "directory of bare repositories")
	files := flag.String("files", "", "directory of files")
	user := flag.String("user", "", "user of what is private")
	password := flag.String("password", "", "password of what is private")
	certificate := flag.String("certificate", "", "certificate file; HTTPS when given")
	key := flag.String("key", "", "key file of the certificate")
	flag.Parse()

	git, err := gitHandler(*repositories)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", git)
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(*files))))
	mux.Handle("/plain/", http.StripPrefix("/plain/", plainHandler(*files)))
	handler := private(mux, *user, *password)

	if *certificate != "" {
		log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, handler))
	}
	log.Fatal(http.ListenAndServe(*listen, handler))
}

func gitHandler(root string) (http.Handler, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, err
	}
	backend := &cgi.Handler{
		Path: git,
		Args: []string{"http-backend"},
		Env: []string{
			"GIT_PROJECT_ROOT=" + root,
			"GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=3",
			"GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true",
			"GIT_CONFIG_KEY_1=http.getanyfile", "GIT_CONFIG_VALUE_1=false",
			// Tests may make their repositories as another user.
			"GIT_CONFIG_KEY_2=safe.directory", "GIT_CONFIG_VALUE_2=*",
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Git sends a large push in chunks, and CGI wants a length.
		if r.ContentLength < 0 {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			r.ContentLength = int64(len(body))
			r.TransferEncoding = nil
		}
		backend.ServeHTTP(w, r)
	}), nil
}

func plainHandler(root string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Open(filepath.Join(root, filepath.Clean("/"+r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer file.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		// Flushed before the first byte, the answer goes out in chunks.
		w.(http.Flusher).Flush()
		io.Copy(w, file)
	})
}

func private(next http.Handler, user, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/private/") {
			givenUser, givenPassword, _ := r.BasicAuth()
			if givenUser != user || subtle.ConstantTimeCompare([]byte(givenPassword), []byte(password)) != 1 {
				w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
				http.Error(w, "user and password wanted", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
