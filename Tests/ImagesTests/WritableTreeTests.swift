import ConfigurationFiles
import Glibc
import Testing

@testable import Images

@Suite final class WritableTreeTests {
    private let folder: String

    init() throws {
        var template = Array("/tmp/andiron-tree-XXXXXX".utf8CString)
        folder = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        for path in [
            "root/fs/home/site/wwwroot/f", "root/fs/var/azureml-app", "root/fs/opt",
            "layers/a/fs/lib/.python_packages/x",
        ] {
            try createFolders("\(folder)/\(path)")
        }
        try write("root/fs/home/site/wwwroot/host.json", [1])
    }

    deinit { removeTree(folder) }

    private func write(_ path: String, _ bytes: [UInt8]) throws { try writeFileAtomically("\(folder)/\(path)", bytes) }

    private func make() throws {
        try WritableTree(root: folder + "/root/fs", scriptRoot: "/home/site/wwwroot/", image: "test")
            .make(in: folder + "/tree")
    }

    private func isLink(_ path: String) -> Bool {
        var information = stat()
        return lstat("\(folder)/\(path)", &information) == 0 && information.st_mode & S_IFMT == S_IFLNK
    }

    private func mode(_ path: String) -> UInt32 {
        var information = stat()
        return stat("\(folder)/\(path)", &information) == 0 ? information.st_mode & 0o777 : 0
    }

    @Test func `files are copied up to the limit; larger ones are linked and protected`() throws {
        let limit = WritableTree.copiedFileByteLimit
        for (name, size) in [("at", limit), ("past", limit + 1)] {
            try write("root/fs/var/azureml-app/\(name)", [])
            truncate("\(folder)/root/fs/var/azureml-app/\(name)", off_t(size))
        }
        try make()
        #expect(!isLink("tree/var/azureml-app/at") && mode("tree/var/azureml-app/at") == 0o644)
        #expect(mode("root/fs/var/azureml-app/at") == 0o644)
        // A file system that shares blocks copies any size.
        if isLink("tree/var/azureml-app/past") { #expect(mode("root/fs/var/azureml-app/past") == 0o444) }
        var information = stat()
        #expect(stat(folder + "/tree/var/azureml-app/past", &information) == 0 && information.st_size == limit + 1)
    }

    @Test func `the rest of the image is there by links, and packages are one link`() throws {
        try write("root/fs/opt/data", [7])
        try write("layers/a/fs/lib/code.py", [8])
        symlink(folder + "/layers/a/fs/lib", folder + "/root/fs/home/site/wwwroot/lib")
        try make()
        #expect(isLink("tree/opt") && readFile(folder + "/tree/opt/data") == [7])
        #expect(!isLink("tree/home") && !isLink("tree/home/site/wwwroot/lib"))
        #expect(!isLink("tree/home/site/wwwroot/lib/code.py"))
        #expect(isLink("tree/home/site/wwwroot/lib/.python_packages"))
        try writeFileAtomically(folder + "/tree/home/site/wwwroot/lib/code.py", [9])
        #expect(readFile(folder + "/layers/a/fs/lib/code.py") == [8])
    }

    @Test func `a link into the image leads to the copy`() throws {
        symlink(folder + "/root/fs/home/site/wwwroot/host.json", folder + "/root/fs/home/site/wwwroot/alias")
        symlink("host.json", folder + "/root/fs/home/site/wwwroot/near")
        symlink("nowhere", folder + "/root/fs/home/site/wwwroot/dangling")
        try make()
        for name in ["alias", "near"] {
            let file = open("\(folder)/tree/home/site/wwwroot/\(name)", O_WRONLY | O_TRUNC)
            #expect(file >= 0)
            close(file)
        }
        #expect(readFile(folder + "/root/fs/home/site/wwwroot/host.json") == [1])
        #expect(isLink("tree/home/site/wwwroot/dangling"))
    }

    @Test func `what cannot be made says why and leaves nothing`() throws {
        try write("tree", [])
        #expect { try make() } throws: { ($0 as? ImageError)?.code == "AN9011" }
        #expect(access(folder + "/tree", F_OK) != 0)
    }
}
