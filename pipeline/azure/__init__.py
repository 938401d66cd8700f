"""Would Azure take this disk, and would it run there? The checklist of Microsoft's pages "Prepare
Linux for imaging in Azure", "Prepare a Windows VHD or VHDX to upload to Azure" and "Information for
community supported and non-endorsed distributions".
"""
