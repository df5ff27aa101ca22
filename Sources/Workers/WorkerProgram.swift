/// The worker program, part of the binary, put on disk for Python to run.
internal import ConfigurationFiles
public import EventLoops
internal import Glibc

/// Writes the program once per version and returns its path.
public func installWorkerProgram(cacheFolder: String) throws(SystemError) -> String {
    let program = PackageResources.andiron_worker_py
    let folder = cacheFolder + "/workers/" + String("\(SHA256Digest(of: program))".prefix(16))
    let path = folder + "/andiron_worker.py"
    if let present = readFile(path), present == program { return path }
    try createFolders(folder)
    try writeFileAtomically(path, program)
    return path
}
