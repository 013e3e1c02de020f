// In the package, so that whoever installs it can build the addon too.
import "../packages/native/addon/build.mjs"
